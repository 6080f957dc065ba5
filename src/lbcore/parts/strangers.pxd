"""Who counts in which of the node's two caps: those who were not let in yet, in the order they came, and
those who were."""

from libc.stdint cimport int64_t

from lbcore.structs cimport conn_t, worker_t
from lbcore.sys.atomics cimport gauge_read


# Counts and links it. When the node has too many, this worker's oldest is doomed in its place, which is
# the newcomer itself when the worker has no other.
cdef void stranger_enter(worker_t *worker, conn_t *conn) noexcept nogil
# The one way out, also from close; harmless when it is out already.
cdef void stranger_leave(worker_t *worker, conn_t *conn) noexcept nogil
# It is as good as a newcomer, to whom its place would go first.
cdef void stranger_renew(worker_t *worker, conn_t *conn) noexcept nogil
# Counts it as one of the node's connections, a stranger no more. False: the node is full, REASON_NODE_FULL is
# set.
cdef bint known_enter(worker_t *worker, conn_t *conn) noexcept nogil
# The one way out; harmless when it is out already.
cdef void known_leave(worker_t *worker, conn_t *conn) noexcept nogil


cdef inline bint node_is_full(worker_t *worker) noexcept nogil:
    """Whether nobody who authenticates now could be served."""
    return gauge_read(&worker.node.open) >= worker.node.open_max
