"""Connections that have not authenticated, in the order they came."""

from lbcore.structs cimport conn_t, worker_t


# Counts and links it. When the node has too many, this worker's oldest is doomed in its place, which is
# the newcomer itself when the worker has no other.
cdef void stranger_enter(worker_t *worker, conn_t *conn) noexcept nogil
# The one way out, also from close; harmless when it is out already.
cdef void stranger_leave(worker_t *worker, conn_t *conn) noexcept nogil
