"""Stage 2, handshake: drive TLS 1.3 until it is done or late. A PROXY header comes before that, where one is
due (path/header.pyx).

Before any TLS object exists, the first nine bytes must look like a record that begins a ClientHello of
reasonable length: a TLS object for every stranger is what a flood wants. Plaintext that follows is looked at
as it passes (parts/flight.pyx). The deadline is absolute from accept: dripped bytes do not extend it. Input
is bounded too.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore.codes cimport (
    REASON_CLIENT_GONE,
    REASON_ERROR,
    REASON_HANDSHAKE_TIMEOUT,
    REASON_HANDSHAKE_TOO_BIG,
    REASON_NONE,
    STEP_CLOSE,
    STEP_NEXT,
    STEP_WAIT,
    reason_t,
)
from lbcore.parts.cells cimport name_ref
from lbcore.parts.der cimport der_serial, der_validity, validity_covers
from lbcore.parts.early cimport early_keep
from lbcore.parts.flight cimport FLIGHT_HEADER, flight_judge
from lbcore.parts.legs cimport leg_flush, leg_io, leg_put
from lbcore.parts.policy cimport policy_judge
from lbcore.parts.poller cimport poller_want
from lbcore.parts.revoked cimport revoked_judge
from lbcore.parts.timers cimport timer_arm, timer_disarm
from lbcore.parts.verdicts cimport verdicts_find
from lbcore.path.header cimport header_step
from lbcore.structs cimport BATCH_MIN, LEG_READABLE, name_t, validity_t
from lbcore.sys.linux cimport (
    EAGAIN,
    EINTR,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    errno,
    memcpy,
    monotonic_ns,
    recv,
    wall_ns,
)
from lbcore.tls.engine cimport TLS_DONE, TLS_FAILED, tls_failure_t, tls_io_t, tls_result_t

cdef enum:
    INPUT_MAX = 32768


cdef step_t handshake_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef ssize_t got
    cdef size_t kept = conn.flight.header_length
    cdef step_t step
    if conn.fronted:
        step = header_step(conn, worker)
        if step != STEP_NEXT:
            return step
    if conn.tls == NULL:
        return STEP_NEXT
    if not conn.client.watched:
        timer_arm(&worker.wheel, conn, conn.accepted_ns + worker.node.handshake_timeout_ns)
        return wait(conn, worker)
    if conn.expired:
        conn.expired = False
        return over(conn, REASON_HANDSHAKE_TIMEOUT)
    if conn.client.out != NULL and leg_flush(worker, &conn.client) != 0:
        return over(conn, REASON_CLIENT_GONE)
    if not conn.client.flags & LEG_READABLE:
        return wait(conn, worker)
    conn.client.flags &= ~<uint32_t>LEG_READABLE
    if conn.client.tls == NULL:
        memcpy(worker.scratch_in, conn.flight.header, kept)
    else:
        kept = 0
    got = recv(conn.client.fd, worker.scratch_in + kept, BATCH_MIN, 0)
    if got <= 0:
        if got < 0 and (errno == EAGAIN or errno == EINTR):
            return wait(conn, worker)
        conn.sys_errno = errno if got < 0 else 0
        return over(conn, REASON_CLIENT_GONE)
    conn.reason = flight_judge(&conn.flight, worker.scratch_in + kept, <size_t>got)
    if conn.reason != REASON_NONE:
        return STEP_CLOSE
    return consume(conn, worker, kept + <size_t>got)


cdef step_t over(conn_t *conn, reason_t reason) noexcept nogil:
    conn.reason = reason
    return STEP_CLOSE


cdef step_t wait(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef uint32_t wanted = EPOLLIN | EPOLLRDHUP
    if conn.client.out != NULL:
        wanted |= EPOLLOUT
    conn.sys_errno = poller_want(worker.epoll_fd, conn, &conn.client, wanted)
    return STEP_WAIT if conn.sys_errno == 0 else over(conn, REASON_ERROR)


cdef step_t consume(conn_t *conn, worker_t *worker, size_t length) noexcept nogil:
    cdef tls_result_t result
    cdef tls_failure_t failure
    if conn.client.tls == NULL:
        if length < <size_t>FLIGHT_HEADER:
            return wait(conn, worker)    # they are in the flight's header
        conn.client.tls = worker.tls_engine.connection_new(worker.tls_pool, conn.tls.config, &worker.io)
        if conn.client.tls == NULL:
            return over(conn, REASON_ERROR)
    conn.handshake_bytes += <uint32_t>length
    leg_io(worker, worker.scratch_in, length)
    worker.io.judge = judge
    worker.io.verified = verified
    worker.io.judged = conn
    worker.io.judging = worker
    result = worker.tls_engine.handshake(conn.client.tls, &worker.io, &failure)
    if result == TLS_FAILED:
        conn.tls_error = failure.name
        conn.alerted = worker.io.output_at > 0
    if worker.io.output_at > 0 and leg_put(worker, &conn.client, worker.io.output, worker.io.output_at) != 0:
        return over(conn, REASON_CLIENT_GONE)
    worker.io.output_at = 0
    if result == TLS_FAILED:
        return over(conn, failure.reason)
    if result == TLS_DONE:
        return finish(conn, worker)
    if conn.handshake_bytes > INPUT_MAX:
        return over(conn, REASON_HANDSHAKE_TOO_BIG)
    return wait(conn, worker)


cdef reason_t judge(tls_io_t *io, const uint8_t *leaf, size_t length) noexcept nogil:
    """For an engine that can put the reason into an alert: what revocation lists and the native policy know
    against this certificate. The client has not proven yet that it has the key, so nothing but a refusal
    comes of it."""
    cdef conn_t *conn = <conn_t *>io.judged
    cdef worker_t *worker = <worker_t *>io.judging
    cdef name_t *client = NULL
    cdef reason_t reason = der_serial(leaf, length, conn.serial, &conn.serial_length)
    if reason == REASON_NONE and conn.tls.revoked != NULL:
        reason = revoked_judge(conn.tls.revoked, conn.serial, conn.serial_length, wall_ns())
    if reason != REASON_NONE or not conn.listener.uses_policy or worker.snapshot.policy == NULL:
        return reason
    reason = policy_judge(worker.snapshot.policy, conn.serial, conn.serial_length, conn.app.name, &client)
    if reason != REASON_NONE and client != NULL and conn.client_name == NULL:
        conn.client_name = name_ref(client)
    return reason


cdef bint verified(tls_io_t *io, const uint8_t *leaf, size_t length) noexcept nogil:
    """A verdict is cached for no certificate that did not finish a handshake under this TLS generation. Since
    then only time has passed, for it and for its CA. The verdict may be gone when the handshake is over:
    authenticate looks for it itself."""
    cdef conn_t *conn = <conn_t *>io.judged
    cdef worker_t *worker = <worker_t *>io.judging
    cdef uint64_t now_ns = wall_ns()
    cdef validity_t validity
    if not validity_covers(&conn.tls.ca_validity, now_ns):
        return False
    if not der_validity(leaf, length, &validity) or not validity_covers(&validity, now_ns):
        return False
    return verdicts_find(worker, conn.listener.id, conn.tls.id, leaf, <uint32_t>length) != NULL


cdef step_t finish(conn_t *conn, worker_t *worker) noexcept nogil:
    conn.proven = True
    conn.handshaken_ns = monotonic_ns()
    timer_disarm(&worker.wheel, conn)
    if early_keep(conn, worker) == STEP_CLOSE:
        return STEP_CLOSE
    return STEP_NEXT
