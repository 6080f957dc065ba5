"""Connections of a worker that wait for the policy's answer."""

from lbcore.structs cimport conn_t, worker_t

# Links it; once.
cdef void parking_enter(worker_t *worker, conn_t *conn) noexcept nogil
# The one way out, also from close; harmless when it is out already.
cdef void parking_leave(worker_t *worker, conn_t *conn) noexcept nogil
