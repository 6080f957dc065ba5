"""A worker's connections.

Blocks of 256 are allocated as they are needed and kept, so a pointer to a connection stays good for
the life of the worker. Giving a slot back raises its generation: an event that epoll had already
collected for the old connection no longer matches and is dropped.

One thread: the worker that owns it.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from lbcore.structs cimport TIMER_NONE
from lbcore.sys.linux cimport memset


cdef bint slab_init(slab_t *slab, uint32_t slots_max) noexcept nogil:
    slab.block_max = (slots_max + SLAB_BLOCK - 1) // SLAB_BLOCK
    slab.block_count = 0
    slab.free = NULL
    slab.in_use = 0
    slab.next_index = 0
    slab.blocks = <conn_t **>calloc(slab.block_max, sizeof(conn_t *))
    return slab.blocks != NULL


cdef void slab_fini(slab_t *slab) noexcept nogil:
    cdef uint32_t i
    for i in range(slab.block_count):
        free(slab.blocks[i])
    free(slab.blocks)
    slab.blocks = NULL
    slab.block_count = 0


cdef conn_t *slab_take(slab_t *slab) noexcept nogil:
    cdef conn_t *conn = slab.free
    cdef uint32_t generation
    cdef uint32_t index
    if conn != NULL:
        slab.free = conn.free_next
        index = conn.index
        generation = conn.generation
    else:
        index = slab.next_index
        if index // SLAB_BLOCK >= slab.block_count and not slab_grow(slab):
            return NULL
        conn = &slab.blocks[index // SLAB_BLOCK][index % SLAB_BLOCK]
        generation = 1
        slab.next_index += 1
    memset(conn, 0, sizeof(conn_t))
    conn.index = index
    conn.generation = generation
    conn.in_use = True
    conn.client.fd = -1
    conn.upstream.fd = -1
    conn.timer_slot = TIMER_NONE
    slab.in_use += 1
    return conn


cdef bint slab_grow(slab_t *slab) noexcept nogil:
    cdef conn_t *block
    if slab.block_count == slab.block_max:
        return False
    block = <conn_t *>calloc(SLAB_BLOCK, sizeof(conn_t))
    if block == NULL:
        return False
    slab.blocks[slab.block_count] = block
    slab.block_count += 1
    return True


cdef void slab_give(slab_t *slab, conn_t *conn) noexcept nogil:
    conn.in_use = False
    conn.generation += 1
    conn.free_next = slab.free
    slab.free = conn
    slab.in_use -= 1
