"""Stage 1."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, listener_t, worker_t
from lbcore.sys.linux cimport sockaddr_in6


cdef enum:
    ACCEPT_BATCH = 16

# One socket of the listener, at most ACCEPT_BATCH a wake-up: a connection for this worker, or NULL.
# *out_more: whether the queue may hold another one.
cdef conn_t *accept_next(listener_t *listener, worker_t *worker, bint *out_more) noexcept nogil
# A socket another worker handed over; its promise in worker.load travels with it. NULL: it was closed.
cdef conn_t *accept_adopt(listener_t *listener, worker_t *worker, int fd,
                          const sockaddr_in6 *source) noexcept nogil
# NEXT, or CLOSE: the node is full.
cdef step_t accept_step(conn_t *conn, worker_t *worker) noexcept nogil
