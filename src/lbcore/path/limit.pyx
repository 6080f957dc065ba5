"""Stage 5, limit: the client's own scope in this application, the scopes around it, the application's.

What is taken here is given back in close, and only there: with its token when nothing came of it.

A scope may make a connection wait instead of refusing it. Then nothing is dialled, the client's bytes are
held (parts/early.pyx), and the worker tries again in turn (parts/waiting.pyx) until the connection is let
through, `max_wait` is over or the client has gone. A full scope may also end its oldest connection for the
new one (parts/succession.pyx): the new one waits for that as for a limit.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc

from lbcore.codes cimport (
    REASON_APP_FULL,
    REASON_CONCURRENT,
    REASON_ERROR,
    REASON_LIMIT_WAIT,
    REASON_RATE,
    REASON_WINDOW,
    STEP_CLOSE,
    STEP_NEXT,
    STEP_WAIT,
    reason_t,
)
from lbcore.parts.cells cimport limiter_ref, limiter_unref
from lbcore.parts.early cimport early_watch
from lbcore.parts.limiter cimport LIMIT_OPEN, LIMIT_RATE, limit_t, limiter_open, refusal_t
from lbcore.parts.rings cimport ring_push, ring_wake
from lbcore.parts.scopes cimport scopes_of
from lbcore.parts.succession cimport succession_enter, succession_worker
from lbcore.parts.timers cimport timer_arm, timer_disarm
from lbcore.parts.waiting cimport waiting_before, waiting_enter, waiting_leave
from lbcore.structs cimport (
    MESSAGE_REPLACE,
    MODE_DELAY,
    MODE_SHADOW,
    SCOPE_APP,
    limiter_t,
    message_t,
    scopes_t,
    stamp_t,
)
from lbcore.sys.linux cimport memset, monotonic_ns

cdef enum:
    REPLACE_NS = 1000000000      # how long a newcomer waits for the oldest connection to end


cdef step_t limit_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef refusal_t refusal
    cdef scopes_t scopes
    cdef limiter_t *ahead
    if not scopes_of(conn, &scopes):
        return over(conn, REASON_ERROR)
    if scopes.count == 0:
        return STEP_NEXT
    if conn.asked_ns == 0:
        conn.asked_ns = worker.now_ns
        if scopes.windowed and not make_room(conn, &scopes):
            return over(conn, REASON_ERROR)
        ahead = somebody_waits(&scopes)
        if ahead != NULL:
            return wait(conn, worker, ahead)
    elif conn.expired:
        conn.expired = False
        return give_up(conn)
    # A strict window is strict about the moment of the open, not about that of the wake-up.
    if scopes.windowed and not worker.simulated:
        worker.now_ns = monotonic_ns()
    if limiter_open(&scopes, conn.asked_ns, worker.now_ns, &conn.taken, &refusal):
        return admit(conn, worker, &scopes, &refusal)
    if refusal.limiter.mode == MODE_DELAY or replace_oldest(conn, worker, &refusal):
        return wait(conn, worker, refusal.limiter)
    return refuse(conn, refusal.limiter, refusal_reason(refusal.limit, refusal.limiter))


cdef step_t over(conn_t *conn, reason_t reason) noexcept nogil:
    conn.reason = reason
    return STEP_CLOSE


cdef bint make_room(conn_t *conn, const scopes_t *scopes) noexcept nogil:
    """For the stamps; freed in close."""
    conn.taken.stamps = <stamp_t *>calloc(scopes.count, sizeof(stamp_t))
    return conn.taken.stamps != NULL


cdef step_t admit(conn_t *conn, worker_t *worker, const scopes_t *scopes,
                  const refusal_t *refusal) noexcept nogil:
    cdef uint32_t i
    cdef limiter_t *limiter
    cdef uint64_t ends_ns
    conn.limited = True
    if conn.delayed:
        conn.waited_ns = worker.now_ns - conn.asked_ns
        worker.delayed_round = conn.round
        waiting_leave(worker, conn)
        timer_disarm(&worker.wheel, conn)
    if refusal.shadow_limiter != NULL:
        conn.would_deny = refusal_reason(refusal.shadow, refusal.shadow_limiter)
    for i in range(scopes.count):
        limiter = scopes.items[i]
        if limiter.mode == MODE_SHADOW:
            continue
        if limiter.bandwidth[0].rate or limiter.bandwidth[1].rate:
            conn.paced = True
        ends_ns = worker.now_ns + limiter.lifetime_ns
        if limiter.lifetime_ns and (conn.ends_ns == 0 or ends_ns < conn.ends_ns):
            conn.ends_ns = ends_ns
    succession_enter(worker, conn, scopes)
    return STEP_NEXT


# ---- refused -------------------------------------------------------------------------------------

cdef reason_t refusal_reason(limit_t limit, limiter_t *limiter) noexcept nogil:
    if limit == LIMIT_RATE:
        return REASON_RATE
    if limit != LIMIT_OPEN:
        return REASON_WINDOW
    return REASON_APP_FULL if limiter.scope == SCOPE_APP else REASON_CONCURRENT


cdef step_t refuse(conn_t *conn, limiter_t *limiter, reason_t reason) noexcept nogil:
    conn.refused_by = limiter.scope
    return over(conn, reason)


cdef step_t give_up(conn_t *conn) noexcept nogil:
    """It has waited long enough."""
    cdef limiter_t *limiter = conn.held_by
    if limiter.mode == MODE_DELAY:
        return refuse(conn, limiter, REASON_LIMIT_WAIT)
    return refuse(conn, limiter, refusal_reason(LIMIT_OPEN, limiter))


# ---- held back -----------------------------------------------------------------------------------

cdef limiter_t *somebody_waits(const scopes_t *scopes) noexcept nogil:
    """A scope that others wait for already: a newcomer may not overtake them."""
    cdef uint32_t i
    for i in range(scopes.count):
        if waiting_before(scopes.items[i]):
            return scopes.items[i]
    return NULL


cdef step_t wait(conn_t *conn, worker_t *worker, limiter_t *limiter) noexcept nogil:
    cdef bint first = not conn.delayed
    cdef uint64_t patience_ns = limiter.wait_max_ns if limiter.mode == MODE_DELAY else <uint64_t>REPLACE_NS
    waiting_enter(worker, conn, limiter)
    timer_arm(&worker.wheel, conn, conn.asked_ns + patience_ns)
    if first:
        early_watch(conn, worker)
    return STEP_WAIT


cdef bint replace_oldest(conn_t *conn, worker_t *worker, const refusal_t *refusal) noexcept nogil:
    """Asks the worker that has the oldest connection to end it, once for each newcomer. True: it is
    worth waiting for."""
    cdef message_t message
    cdef int number
    if refusal.limiter.succession == NULL or refusal.limit != LIMIT_OPEN:
        return False
    if conn.replacing:
        return True
    number = succession_worker(refusal.limiter, worker.node)
    if number < 0:
        return False
    memset(&message, 0, sizeof(message))
    message.kind = MESSAGE_REPLACE
    message.cell = limiter_ref(refusal.limiter)
    if not ring_push(&worker.node.workers[number].inbox, &message):
        limiter_unref(refusal.limiter)
        return False
    ring_wake(&worker.node.workers[number].inbox)
    conn.replacing = True
    return True
