"""Connections that a limit holds back, in the order in which a worker tries them."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport conn_t, limiter_t, worker_t

# Links it, or only notes that another scope holds it back now.
cdef void waiting_enter(worker_t *worker, conn_t *conn, limiter_t *held_by) noexcept nogil
# The one way out, also from close; harmless when it is out already.
cdef void waiting_leave(worker_t *worker, conn_t *conn) noexcept nogil
# Whether somebody waits for this scope already: a newcomer may not overtake.
cdef bint waiting_before(limiter_t *limiter) noexcept nogil
# When this worker may try its delayed connections next.
cdef uint64_t waiting_turn_ns(worker_t *worker) noexcept nogil

cdef struct sweep_t:             # one look at the delayed connections
    worker_t *worker
    conn_t *next
    limiter_t *full[8]           # scopes that refused one
    int count


cdef void sweep_begin(worker_t *worker, sweep_t *sweep) noexcept nogil
# The next one that is worth trying, or NULL: the look is over, and the next one is due in this worker's turn.
cdef conn_t *sweep_next(sweep_t *sweep) noexcept nogil
# After trying it: if it is still delayed, others held back by the same scope need not be tried.
cdef void sweep_refused(sweep_t *sweep, const conn_t *conn) noexcept nogil
