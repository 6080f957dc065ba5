"""Who has to go when a full scope replaces its oldest connection."""

from lbcore.structs cimport conn_t, limiter_t, node_t, scopes_t, succession_t, worker_t

cdef succession_t *succession_new() noexcept nogil
# A connection was admitted: it joins the first of its scopes that replaces, at the young end.
cdef void succession_enter(worker_t *worker, conn_t *conn, const scopes_t *scopes) noexcept nogil
# The one way out, from close; harmless when it is in none.
cdef void succession_leave(worker_t *worker, conn_t *conn) noexcept nogil
# The number of the worker that has the oldest connection; -1: there is none
# in this engine.
cdef int succession_worker(limiter_t *limiter, const node_t *node) noexcept nogil
# This worker's oldest connection, or NULL. Borrowed.
cdef conn_t *succession_oldest(worker_t *worker, limiter_t *limiter) noexcept nogil
