"""Who counts in which of the node's two caps: connections that have not authenticated, in the order they
came, and those that have."""

from libc.stdint cimport int64_t

from lbcore.structs cimport conn_t, worker_t
from lbcore.sys.atomics cimport gauge_read


# Counts and links it. When the node has too many, this worker's oldest is doomed in its place, which is
# the newcomer itself when the worker has no other.
cdef void stranger_enter(worker_t *worker, conn_t *conn) noexcept nogil
# The one way out, also from close; harmless when it is out already.
cdef void stranger_leave(worker_t *worker, conn_t *conn) noexcept nogil
# Counts it as one of the node's connections. False: the node is full, REASON_NODE_FULL is set.
cdef bint known_enter(worker_t *worker, conn_t *conn) noexcept nogil
# The one way out; harmless when it is out already.
cdef void known_leave(worker_t *worker, conn_t *conn) noexcept nogil


cdef inline bint node_is_full(worker_t *worker) noexcept nogil:
    """Whether nobody who authenticates now could be served."""
    return gauge_read(&worker.node.open) >= worker.node.open_max
