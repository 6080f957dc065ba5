"""Connections live in a slab: never moved, reused with a new generation, bounded."""

from libc.stdint cimport uint32_t

from lbcore.structs cimport conn_t, slab_t


cdef enum:
    SLAB_BLOCK = 256             # connections per allocation


# Room for `slots_max` connections, none allocated yet. False: out of memory.
cdef bint slab_init(slab_t *slab, uint32_t slots_max) noexcept nogil
cdef void slab_fini(slab_t *slab) noexcept nogil
# A zeroed connection with both descriptors -1, or NULL when full or out of memory.
cdef conn_t *slab_take(slab_t *slab) noexcept nogil
cdef void slab_give(slab_t *slab, conn_t *conn) noexcept nogil


cdef inline conn_t *slab_slot(slab_t *slab, uint32_t index) noexcept nogil:
    """The slot, in use or not; NULL past the last one ever handed out."""
    if index >= slab.next_index:
        return NULL
    return &slab.blocks[index // SLAB_BLOCK][index % SLAB_BLOCK]


cdef inline conn_t *slab_find(slab_t *slab, uint32_t index, uint32_t generation) noexcept nogil:
    """The connection an event speaks of, or NULL when that one is gone: the event is stale."""
    cdef conn_t *conn = slab_slot(slab, index)
    if conn == NULL or not conn.in_use or (conn.generation & 0x3fffffff) != generation:
        return NULL
    return conn
