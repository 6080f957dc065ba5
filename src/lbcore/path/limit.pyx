"""Stage 5, limit: the client's own scope in this application, then the application's.

What is taken here is given back in close, and only there: with its token when nothing came of it.
"""

from lbcore.codes cimport REASON_APP_FULL, REASON_CONCURRENT, REASON_RATE, STEP_CLOSE, STEP_NEXT
from lbcore.parts.limiter cimport LIMIT_OPEN, limiter_open, refusal_t
from lbcore.structs cimport SCOPE_APP


cdef step_t limit_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef refusal_t refusal
    if conn.verdict != NULL and conn.verdict.limiter != NULL:
        if not limiter_open(conn.verdict.limiter, worker.now_ns, &refusal):
            return refuse(conn, &refusal)
        conn.limited = True
    if conn.app.limiter != NULL:
        if not limiter_open(conn.app.limiter, worker.now_ns, &refusal):
            return refuse(conn, &refusal)
        conn.app_limited = True
    return STEP_NEXT


cdef step_t refuse(conn_t *conn, const refusal_t *refusal) noexcept nogil:
    conn.refused_by = refusal.limiter.scope
    if refusal.limit != LIMIT_OPEN:
        conn.reason = REASON_RATE
    elif conn.refused_by == SCOPE_APP:
        conn.reason = REASON_APP_FULL
    else:
        conn.reason = REASON_CONCURRENT
    return STEP_CLOSE
