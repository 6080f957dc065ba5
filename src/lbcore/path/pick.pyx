"""Stage 6, pick: reserve an upstream before it is dialled, the least loaded or the client's own.

A connection has its turn, where it starts to look, and keeps it when it picks again. An upstream that
failed this connection is never tried again by it. The count is given back in close (close_upstream), and
only there.
"""

from libc.stdint cimport uint64_t

from lbcore.codes cimport REASON_NO_UPSTREAM, STEP_CLOSE, STEP_NEXT
from lbcore.parts.balance cimport balance_hash, balance_pick, balance_pick_for, balance_turn, choice_t
from lbcore.parts.cells cimport name_ref, name_unref, upstream_ref
from lbcore.sys.linux cimport AF_INET, sockaddr_in


cdef step_t pick_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef choice_t choice
    cdef bint found
    if conn.app.by_client:
        found = balance_pick_for(
            conn.app, client_hash(conn), conn.tried, conn.attempts, worker.now_ns, &choice)
    else:
        if conn.attempts == 0:
            conn.turn = balance_turn(conn.app)
        found = balance_pick(conn.app, conn.turn, conn.tried, conn.attempts, worker.now_ns, &choice)
    if not found:
        conn.reason = conn.dial_failure if conn.attempts > 0 else REASON_NO_UPSTREAM
        return STEP_CLOSE
    conn.picked = upstream_ref(choice.upstream)
    conn.probing = choice.probing
    name_unref(conn.upstream_name)
    conn.upstream_name = name_ref(choice.upstream.name)
    conn.tried[conn.attempts] = choice.upstream.mark
    conn.attempts += 1
    return STEP_NEXT


cdef uint64_t client_hash(conn_t *conn) noexcept nogil:
    """Who it is: by name, so that a renewed certificate changes nothing; by serial; by source address."""
    if conn.client_name != NULL:
        return balance_hash(conn.client_name.text, conn.client_name.length)
    if conn.serial_length > 0:
        return balance_hash(conn.serial, conn.serial_length)
    if conn.source.sin6_family == AF_INET:
        return balance_hash(&(<sockaddr_in *>&conn.source).sin_addr, 4)
    return balance_hash(conn.source.sin6_addr.s6_addr, 16)
