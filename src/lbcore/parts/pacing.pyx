"""A leg reads on a lease: so many bytes reserved in every scope that has a bandwidth for its direction.

The account is charged before the bytes are read, so nothing is ever read that was not allowed, and a leg
whose lease is not due is simply not read: the kernel's window closes and the sender waits. A TLS record is
decrypted as a whole, so a lease may be overdrawn by one; the next one is that much bigger.

One thread: the worker of the connection; the accounts are shared.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from lbcore.parts.bandwidth cimport bandwidth_quantum, bandwidth_reserve, bandwidth_return
from lbcore.parts.scopes cimport scopes_of
from lbcore.structs cimport (
    DIRECTION_IN,
    DIRECTION_OUT,
    MODE_SHADOW,
    bandwidth_t,
    direction_t,
    limiter_t,
    scopes_t,
)

cdef enum:
    UNLIMITED = 0x3fffffffffffffff       # no scope limits this direction: never asked again


cdef direction_t direction_of(conn_t *conn, leg_t *leg) noexcept nogil:
    return DIRECTION_IN if leg is &conn.client else DIRECTION_OUT


cdef bandwidth_t *limiting(limiter_t *limiter, direction_t direction) noexcept nogil:
    """The scope's bandwidth in that direction, or NULL."""
    cdef bandwidth_t *bandwidth = &limiter.bandwidth[<int>direction]
    return bandwidth if bandwidth.rate and limiter.mode != MODE_SHADOW else NULL


cdef bint pacing_may_read(conn_t *conn, leg_t *leg, uint64_t now_ns) noexcept nogil:
    if leg.ready_ns == 0 and leg.lease <= 0:
        leg.ready_ns = reserve(conn, leg, now_ns)
    if leg.ready_ns > now_ns:
        return False
    leg.ready_ns = 0
    return True


cdef uint64_t reserve(conn_t *conn, leg_t *leg, uint64_t now_ns) noexcept nogil:
    """The smallest portion of all scopes, and what the last lease was overdrawn by."""
    cdef uint64_t portion = 0
    cdef uint64_t quantum
    cdef uint64_t ready_ns = now_ns
    cdef uint64_t due_ns
    cdef uint32_t i
    cdef bandwidth_t *bandwidth
    cdef direction_t direction = direction_of(conn, leg)
    cdef scopes_t scopes
    scopes_of(conn, &scopes)
    for i in range(scopes.count):
        bandwidth = limiting(scopes.items[i], direction)
        if bandwidth != NULL:
            quantum = bandwidth_quantum(bandwidth)
            if portion == 0 or quantum < portion:
                portion = quantum
    if portion == 0:
        leg.lease = UNLIMITED
        return now_ns
    for i in range(scopes.count):
        bandwidth = limiting(scopes.items[i], direction)
        if bandwidth != NULL:
            due_ns = bandwidth_reserve(bandwidth, portion + <uint64_t>-leg.lease, now_ns)
            if due_ns > ready_ns:
                ready_ns = due_ns
    leg.lease = <int64_t>portion
    return ready_ns


cdef void pacing_return(conn_t *conn, leg_t *leg) noexcept nogil:
    cdef uint32_t i
    cdef bandwidth_t *bandwidth
    cdef direction_t direction = direction_of(conn, leg)
    cdef scopes_t scopes
    if leg.lease <= 0 or not conn.paced:
        return
    scopes_of(conn, &scopes)
    for i in range(scopes.count):
        bandwidth = limiting(scopes.items[i], direction)
        if bandwidth != NULL:
            bandwidth_return(bandwidth, <uint64_t>leg.lease)
    leg.lease = 0
    leg.ready_ns = 0
