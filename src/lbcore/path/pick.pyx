"""Stage 6, pick: reserve the least loaded upstream before it is dialled.

A connection has its turn, where it starts to look, and keeps it when it picks again. An upstream that
failed this connection is never tried again by it. The count is given back in close (close_upstream), and
only there.
"""

from lbcore.codes cimport REASON_CONNECT_FAILED, REASON_NO_UPSTREAM, STEP_CLOSE, STEP_NEXT
from lbcore.parts.balance cimport balance_pick, balance_turn
from lbcore.parts.cells cimport upstream_ref


cdef step_t pick_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef int chosen
    if conn.attempts == 0:
        conn.turn = balance_turn(conn.app)
    chosen = balance_pick(conn.app, conn.turn, conn.tried, conn.failed, worker.now_ns)
    if chosen < 0:
        conn.reason = REASON_CONNECT_FAILED if conn.attempts > 0 else REASON_NO_UPSTREAM
        return STEP_CLOSE
    conn.picked = upstream_ref(conn.app.upstreams[chosen])
    conn.tried[conn.attempts] = <unsigned short>chosen
    conn.attempts += 1
    return STEP_NEXT
