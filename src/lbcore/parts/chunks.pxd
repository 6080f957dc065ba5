"""Pooled buffers for bytes the kernel would not take."""

from libc.stdint cimport uint8_t, uint32_t

from lbcore.structs cimport chunk_pool_t, chunk_t


# The room of the smallest chunk for `length` bytes; 0: there is none so large, or none is needed.
cdef uint32_t chunk_room(size_t length) noexcept nogil
# That of the largest chunk which, beside so many bytes of the other direction, stays within CONN_BYTES_MAX.
cdef uint32_t chunk_room_beside(uint32_t other) noexcept nogil
# A chunk with room for at least `length` bytes, or NULL: out of memory or more than the largest class.
cdef chunk_t *chunk_take(chunk_pool_t *pool, size_t length) noexcept nogil
cdef void chunk_give(chunk_pool_t *pool, chunk_t *chunk) noexcept nogil
cdef void chunk_pool_fini(chunk_pool_t *pool) noexcept nogil
# Put `length` bytes behind what *holder has, taking a (larger) chunk where needed. False: no memory,
# *holder is as it was.
cdef bint chunk_append(chunk_pool_t *pool, chunk_t **holder, const uint8_t *data,
                       size_t length) noexcept nogil
