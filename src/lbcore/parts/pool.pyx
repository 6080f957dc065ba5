"""The upstreams of an application come and go while connections run.

A pool is frozen; a change makes a new one and swaps the pointer. Workers read it without a lock and without
a reference, within one pick only, so whoever swaps waits until every worker has gone round its loop
(engine.pyx, `settle`) and frees the old one then. A connection holds a reference to the upstream it was
given, never to the pool.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lbcore.parts.cells cimport upstream_unref
from lbcore.structs cimport pool_t
from lbcore.sys.atomics cimport word_exchange


cdef pool_t *pool_new(uint32_t count) noexcept nogil:
    cdef pool_t *pool = <pool_t *>calloc(1, sizeof(pool_t) + count * sizeof(upstream_t *))
    if pool != NULL:
        pool.count = count
    return pool


cdef void pool_free(pool_t *pool) noexcept nogil:
    cdef uint32_t i
    if pool == NULL:
        return
    for i in range(pool.count):
        upstream_unref(pool.upstreams[i])
    free(pool)


cdef pool_t *pool_replace(app_t *app, pool_t *pool) noexcept nogil:
    return <pool_t *>word_exchange(&app.pool, <uint64_t>pool)
