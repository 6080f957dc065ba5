"""Whether there is enough left for those who are connected already."""

from lbcore.structs cimport worker_t


cdef enum:
    PAUSE_NS = 100000000         # how long a worker that lacks something leaves its listeners alone

# Asked before each accept. True: there is little memory, and accepting pauses.
cdef bint headroom_is_short(worker_t *worker) noexcept nogil
# Descriptors or memory have run out: accepting pauses.
cdef void headroom_ran_out(worker_t *worker) noexcept nogil
