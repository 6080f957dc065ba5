"""Orders: what the engine has every worker carry out."""

from libc.stdint cimport uint32_t

from lbcore.structs cimport order_kind_t, order_t, snapshot_t


# One reference for the caller and one for each worker. NULL: out of memory. `done_fd` is the caller's.
cdef order_t *order_new(order_kind_t kind, snapshot_t *snapshot, uint32_t workers, int done_fd) noexcept nogil
# A worker has carried it out: tells the caller when it was the last one, and gives its reference back.
cdef void order_done(order_t *order) noexcept nogil
cdef void order_unref(order_t *order) noexcept nogil
