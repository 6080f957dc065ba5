"""The set of upstreams that an application has now, and how it is replaced."""

from libc.stdint cimport uint32_t

from lbcore.structs cimport app_t, pool_t, upstream_t
from lbcore.sys.atomics cimport word_read


# Room for `count` upstreams, none filled in; NULL: out of memory.
cdef pool_t *pool_new(uint32_t count) noexcept nogil
# With the references in it. NULL is allowed.
cdef void pool_free(pool_t *pool) noexcept nogil
# Makes it the application's. The one before, which a worker may still be reading: to be freed when each of
# them has gone round its loop once. NULL: there was none.
cdef pool_t *pool_replace(app_t *app, pool_t *pool) noexcept nogil


cdef inline pool_t *pool_of(app_t *app) noexcept nogil:
    """Borrowed: a worker may read it until its loop goes round, any other thread while nobody replaces it."""
    return <pool_t *>word_read(&app.pool)
