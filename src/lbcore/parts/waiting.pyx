"""The list of connections that a limit holds back.

Fair between clients: each delayed connection gets a round, its client's first one the current round, the
second one the next, and so on (start-time fair queueing with connections of equal cost: Goyal, Vin, Cheng
1996). So a client with a hundred connections waiting is served as often as one with two. A client is its
innermost limiter; those without one share the scope's queue in order of arrival.

Fair between workers: they look in turn, each in its own part of a period, and not whenever something is given
back: otherwise the worker that closes a connection would always have the next one too.

One thread: the worker that owns the list; the counters in the limiters are shared.
"""

from libc.stdint cimport uint64_t

from lbcore.sys.atomics cimport word_add, word_read, word_subtract

cdef enum:
    TURN_PERIOD_NS = 16000000    # shared by all workers
    TURN_MIN_NS = 1000000
    FULL_MAX = 8                 # of sweep_t


cdef void waiting_enter(worker_t *worker, conn_t *conn, limiter_t *held_by) noexcept nogil:
    if not conn.delayed:
        conn.delayed = True
        if worker.delayed == NULL:
            worker.delayed_due_ns = waiting_turn_ns(worker)
        conn.round = worker.delayed_round + word_add(&innermost(conn).queued, 1)
        link(worker, conn)
    if conn.held_by is held_by:
        return
    if conn.held_by != NULL:
        word_subtract(&conn.held_by.waiting, 1)
    word_add(&held_by.waiting, 1)
    conn.held_by = held_by


cdef limiter_t *innermost(conn_t *conn) noexcept nogil:
    if conn.verdict != NULL and conn.verdict.limiter != NULL:
        return conn.verdict.limiter
    return conn.limiter if conn.limiter != NULL else conn.app.limiter


cdef void link(worker_t *worker, conn_t *conn) noexcept nogil:
    """Behind everybody of the same or an earlier round. Greedy clients belong at the end, modest ones
    near the head: looked for from the end that is likely to be nearer."""
    cdef conn_t *before = worker.delayed_tail
    cdef conn_t *after
    if before != NULL and before.round > conn.round:
        after = worker.delayed
        while after.round <= conn.round:
            after = after.parked_next
        before = after.parked_prev
    else:
        after = NULL
    conn.parked_prev = before
    conn.parked_next = after
    if before != NULL:
        before.parked_next = conn
    else:
        worker.delayed = conn
    if after != NULL:
        after.parked_prev = conn
    else:
        worker.delayed_tail = conn


cdef void waiting_leave(worker_t *worker, conn_t *conn) noexcept nogil:
    if not conn.delayed:
        return
    conn.delayed = False
    word_subtract(&innermost(conn).queued, 1)
    word_subtract(&conn.held_by.waiting, 1)
    conn.held_by = NULL
    if conn.parked_prev != NULL:
        conn.parked_prev.parked_next = conn.parked_next
    else:
        worker.delayed = conn.parked_next
    if conn.parked_next != NULL:
        conn.parked_next.parked_prev = conn.parked_prev
    else:
        worker.delayed_tail = conn.parked_prev
    conn.parked_next = NULL
    conn.parked_prev = NULL


cdef bint waiting_before(limiter_t *limiter) noexcept nogil:
    return word_read(&limiter.waiting) > 0


cdef uint64_t waiting_turn_ns(worker_t *worker) noexcept nogil:
    cdef uint64_t workers = worker.node.worker_count if worker.node.worker_count > 0 else 1
    cdef uint64_t turn_ns = TURN_PERIOD_NS // workers
    cdef uint64_t period_ns
    cdef uint64_t begins_ns
    if turn_ns < TURN_MIN_NS:
        turn_ns = TURN_MIN_NS
    period_ns = turn_ns * workers
    begins_ns = worker.now_ns // period_ns * period_ns + turn_ns * worker.number
    return begins_ns if begins_ns > worker.now_ns else begins_ns + period_ns


cdef void sweep_begin(worker_t *worker, sweep_t *sweep) noexcept nogil:
    sweep.worker = worker
    sweep.next = worker.delayed
    sweep.count = 0


cdef conn_t *sweep_next(sweep_t *sweep) noexcept nogil:
    """With as many full scopes as it can remember the look ends early; the next one is only a turn away."""
    cdef conn_t *conn = sweep.next
    while conn != NULL and sweep.count < FULL_MAX:
        sweep.next = conn.parked_next
        if not is_full(sweep, conn.held_by):
            return conn
        conn = sweep.next
    sweep.worker.delayed_due_ns = waiting_turn_ns(sweep.worker)
    return NULL


cdef bint is_full(const sweep_t *sweep, const limiter_t *limiter) noexcept nogil:
    cdef int i
    for i in range(sweep.count):
        if sweep.full[i] is limiter:
            return True
    return False


cdef void sweep_refused(sweep_t *sweep, const conn_t *conn) noexcept nogil:
    if conn.delayed:
        sweep.full[sweep.count] = conn.held_by
        sweep.count += 1
