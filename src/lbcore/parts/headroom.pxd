"""Whether there is enough left for those who are connected already."""

from lbcore.structs cimport worker_t
from lbcore.sys.linux cimport EMFILE, ENFILE, ENOBUFS, ENOMEM


# Asked before each accept. True: there is little memory, and accepting pauses.
cdef bint headroom_is_short(worker_t *worker) noexcept nogil
# Descriptors or memory have run out: accepting pauses, and that is counted.
cdef void headroom_ran_out(worker_t *worker) noexcept nogil


cdef inline bint headroom_is_lacking(int problem) noexcept nogil:
    """Whether the errno says that descriptors or memory have run out."""
    return problem in (EMFILE, ENFILE, ENOBUFS, ENOMEM)
