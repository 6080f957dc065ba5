"""One worker: a thread with its own epoll set, connections, timers and buffers."""

from libc.stdint cimport uint32_t, uint64_t

from lbcore.structs cimport node_t, snapshot_t, worker_t
from lbcore.tls.engine cimport tls_engine_t


# All of it, or NULL and errno (EMSGSIZE: the engine's records do not fit the worker's buffers). Takes a
# reference to the snapshot. Its listeners are watched once it runs.
cdef worker_t *worker_new(node_t *node, uint32_t number, const tls_engine_t *engine, snapshot_t *snapshot,
                          uint32_t slots) noexcept nogil
# After its thread has ended (or was never started).
cdef void worker_free(worker_t *worker) noexcept nogil
# Whether epoll tells of the snapshot's listeners. When that cannot be had, accepting pauses and is tried
# again later: the worker's own thread, or before it runs.
cdef void watch_listeners(worker_t *worker, bint watched) noexcept nogil
# One event that epoll told of, for whoever its tag names; nobody when that one is gone. The worker's own
# thread.
cdef void dispatch(worker_t *worker, uint64_t tag, uint32_t events) noexcept nogil
# 0, or an errno. The thread blocks all signals and never touches the interpreter.
cdef int worker_start(worker_t *worker) noexcept nogil
