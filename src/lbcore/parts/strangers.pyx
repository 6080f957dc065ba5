"""The caps of a node: on its connections, and on those among its sockets that were not let in yet.

A socket counts in one of the two, so strangers take no place of those who are known: a certificate alone,
that nobody has listed, buys none. When there are too many strangers, the oldest one is evicted and not the
newcomer: a flood of silent sockets is old, an honest client finishes within milliseconds. Whoever has
authenticated and waits for the verdict is as good as new. The cap is the node's; each worker evicts from its
own list, and a newcomer that is alone there stays: otherwise silent sockets that fill the cap on one worker
would shut every client out of the others. So the cap may be exceeded by one for each further worker.
A plaintext connection is known at once, or when the PROXY header that it owes is there.
"""

from lbcore.codes cimport REASON_NODE_FULL, REASON_UNAUTHENTICATED_FULL
from lbcore.sys.atomics cimport gauge_give, gauge_take, gauge_take_below


cdef void stranger_enter(worker_t *worker, conn_t *conn) noexcept nogil:
    conn.unauthenticated = True
    append(worker, conn)
    if (
        gauge_take(&worker.node.unauthenticated) > worker.node.unauthenticated_max
        and conn.stranger_prev != NULL
    ):
        doom(worker, worker.strangers_head)


cdef void append(worker_t *worker, conn_t *conn) noexcept nogil:
    conn.stranger_next = NULL
    conn.stranger_prev = worker.strangers_tail
    if worker.strangers_tail != NULL:
        worker.strangers_tail.stranger_next = conn
    else:
        worker.strangers_head = conn
    worker.strangers_tail = conn


cdef void stranger_renew(worker_t *worker, conn_t *conn) noexcept nogil:
    if conn.unauthenticated:
        unlink(worker, conn)
        append(worker, conn)


cdef void doom(worker_t *worker, conn_t *conn) noexcept nogil:
    """Closed by the worker after this batch of events; out of the list now, so it is not picked again."""
    stranger_leave(worker, conn)
    if not conn.lingering:               # else it has had its reason, and its record
        conn.reason = REASON_UNAUTHENTICATED_FULL
    conn.doomed = True
    conn.free_next = worker.doomed
    worker.doomed = conn


cdef void stranger_leave(worker_t *worker, conn_t *conn) noexcept nogil:
    if not conn.unauthenticated:
        return
    conn.unauthenticated = False
    gauge_give(&worker.node.unauthenticated)
    unlink(worker, conn)


cdef void unlink(worker_t *worker, conn_t *conn) noexcept nogil:
    if conn.stranger_prev != NULL:
        conn.stranger_prev.stranger_next = conn.stranger_next
    else:
        worker.strangers_head = conn.stranger_next
    if conn.stranger_next != NULL:
        conn.stranger_next.stranger_prev = conn.stranger_prev
    else:
        worker.strangers_tail = conn.stranger_prev
    conn.stranger_next = NULL
    conn.stranger_prev = NULL


cdef bint known_enter(worker_t *worker, conn_t *conn) noexcept nogil:
    if conn.counted:
        return True
    conn.counted = gauge_take_below(&worker.node.open, worker.node.open_max)
    if not conn.counted:
        conn.reason = REASON_NODE_FULL
        return False
    stranger_leave(worker, conn)         # not before: who adds both counts up must find it in one of them
    return True


cdef void known_leave(worker_t *worker, conn_t *conn) noexcept nogil:
    if conn.counted:
        conn.counted = False
        gauge_give(&worker.node.open)
