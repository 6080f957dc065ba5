"""Buffers for what a peer is too slow to take.

Six size classes, each half of the next one, with room in the largest for whatever one direction holds. A few
free ones of each are kept, so that a slow reader does not cost an allocation per wake-up, and so few that a
crowd of slow readers that left does not stay in memory. One thread: the worker that owns the pool.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc

from lbcore.structs cimport CHUNK_CLASSES, CONN_BYTES_MAX, SCRATCH_BYTES
from lbcore.sys.linux cimport memcpy, memmove

cdef enum:
    KEPT_MAX = 16                # per class


cdef uint32_t class_room(int size_class) noexcept nogil:
    """6.5, 13, 26, 52, 104 and 208 KiB."""
    return <uint32_t>SCRATCH_BYTES >> (CHUNK_CLASSES - 1 - size_class)


cdef int class_for(size_t length) noexcept nogil:
    """The least that has room for it; CHUNK_CLASSES when none has."""
    cdef int size_class
    for size_class in range(CHUNK_CLASSES):
        if length <= class_room(size_class):
            return size_class
    return CHUNK_CLASSES


cdef uint32_t chunk_room(size_t length) noexcept nogil:
    cdef int size_class = class_for(length)
    return class_room(size_class) if length > 0 and size_class < CHUNK_CLASSES else 0


cdef uint32_t chunk_room_beside(uint32_t other) noexcept nogil:
    cdef int size_class = CHUNK_CLASSES - 1
    while size_class > 0 and class_room(size_class) + other > CONN_BYTES_MAX:
        size_class -= 1
    return class_room(size_class)


cdef chunk_t *chunk_take(chunk_pool_t *pool, size_t length) noexcept nogil:
    cdef int size_class = class_for(length)
    cdef chunk_t *chunk
    if size_class == CHUNK_CLASSES:
        return NULL
    chunk = pool.free[size_class]
    if chunk != NULL:
        pool.free[size_class] = chunk.next
        pool.kept[size_class] -= 1
    else:
        chunk = <chunk_t *>malloc(sizeof(chunk_t) + class_room(size_class))
        if chunk == NULL:
            return NULL
        chunk.size_class = <uint8_t>size_class
        chunk.room = class_room(size_class)
    chunk.next = NULL
    chunk.start = 0
    chunk.length = 0
    return chunk


cdef void chunk_give(chunk_pool_t *pool, chunk_t *chunk) noexcept nogil:
    cdef int size_class = chunk.size_class
    if pool.kept[size_class] >= KEPT_MAX:
        free(chunk)
        return
    chunk.next = pool.free[size_class]
    pool.free[size_class] = chunk
    pool.kept[size_class] += 1


cdef void chunk_pool_fini(chunk_pool_t *pool) noexcept nogil:
    cdef int size_class
    cdef chunk_t *chunk
    for size_class in range(CHUNK_CLASSES):
        while pool.free[size_class] != NULL:
            chunk = pool.free[size_class]
            pool.free[size_class] = chunk.next
            free(chunk)
        pool.kept[size_class] = 0


cdef bint chunk_append(chunk_pool_t *pool, chunk_t **holder, const uint8_t *data,
                       size_t length) noexcept nogil:
    cdef chunk_t *chunk = holder[0]
    cdef chunk_t *larger
    if length == 0:
        return True
    if chunk == NULL or chunk.length + length > chunk.room:
        larger = chunk_take(pool, length + (chunk.length if chunk != NULL else 0))
        if larger == NULL:
            return False
        if chunk != NULL:
            memcpy(larger.data, chunk.data + chunk.start, chunk.length)
            larger.length = chunk.length
            chunk_give(pool, chunk)
        chunk = larger
        holder[0] = chunk
    elif chunk.start + chunk.length + length > chunk.room:
        memmove(chunk.data, chunk.data + chunk.start, chunk.length)
        chunk.start = 0
    memcpy(chunk.data + chunk.start + chunk.length, data, length)
    chunk.length += <uint32_t>length
    return True
