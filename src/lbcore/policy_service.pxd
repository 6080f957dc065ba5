"""The thread that answers what workers ask."""

from lbcore.structs cimport ask_t, node_t, verdict_t


cdef class PolicyService:
    cdef node_t *node            # the engine's; not touched after `close`
    cdef object pool
    cdef object lock             # of what follows, and of the workers' inboxes
    cdef dict listeners          # id -> (authorizer, application name, SourceLimits)
    cdef dict questions          # (listener, epoch, TLS generation, key) -> Question under way
    cdef bint closed
    cdef object thread

    # These talk to workers, so they need the GIL and may raise.
    cdef start(self, node_t *node, int threads, double timeout)
    cdef close(self, double timeout)
    cdef _forget_asks(self)
    cdef _take(self, ask_t *ask)
    cdef _put(self, tuple name, ask_t *ask)
    cdef _post(self, verdict_t *verdict)
