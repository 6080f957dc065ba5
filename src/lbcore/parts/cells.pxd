"""Reference counts of the cells: take one for whoever will point at it, give it back once.

The last one frees, on whichever thread that is.
"""

from libc.stdint cimport uint32_t, uint64_t

from lbcore.structs cimport (
    app_t,
    limiter_t,
    listener_t,
    name_t,
    policy_t,
    pool_t,
    snapshot_t,
    tls_generation_t,
    upstream_t,
    verdict_t,
)
from lbcore.sys.atomics cimport refs_take, word_exchange, word_read
from lbcore.sys.linux cimport sockaddr


cdef inline name_t *name_ref(name_t *name) noexcept nogil:
    if name != NULL:
        refs_take(&name.refs)
    return name


cdef inline limiter_t *limiter_ref(limiter_t *limiter) noexcept nogil:
    if limiter != NULL:
        refs_take(&limiter.refs)
    return limiter


cdef inline upstream_t *upstream_ref(upstream_t *upstream) noexcept nogil:
    refs_take(&upstream.refs)
    return upstream


cdef inline int upstream_family(const upstream_t *upstream) noexcept nogil:
    """AF_INET, AF_INET6 or AF_UNIX."""
    return (<const sockaddr *>upstream.address).sa_family


cdef inline app_t *app_ref(app_t *app) noexcept nogil:
    refs_take(&app.refs)
    return app


cdef inline tls_generation_t *tls_ref(tls_generation_t *tls) noexcept nogil:
    if tls != NULL:
        refs_take(&tls.refs)
    return tls


cdef inline verdict_t *verdict_ref(verdict_t *verdict) noexcept nogil:
    refs_take(&verdict.refs)
    return verdict


cdef inline policy_t *policy_ref(policy_t *policy) noexcept nogil:
    if policy != NULL:
        refs_take(&policy.refs)
    return policy


cdef inline listener_t *listener_ref(listener_t *listener) noexcept nogil:
    refs_take(&listener.refs)
    return listener


cdef inline snapshot_t *snapshot_ref(snapshot_t *snapshot) noexcept nogil:
    refs_take(&snapshot.refs)
    return snapshot


# Zeroed memory that starts on a cache line, for what has gauges in it; or NULL. The caller frees it.
cdef void *lines_new(size_t size) noexcept nogil
# A zeroed cell with one reference, or NULL: out of memory.
cdef name_t *name_new(const char *text, uint32_t length) noexcept nogil
cdef limiter_t *limiter_new() noexcept nogil
cdef upstream_t *upstream_new() noexcept nogil
cdef app_t *app_new() noexcept nogil
cdef tls_generation_t *tls_new() noexcept nogil
cdef verdict_t *verdict_new(uint32_t key_length) noexcept nogil
cdef listener_t *listener_new() noexcept nogil
cdef snapshot_t *snapshot_new(uint32_t listener_count) noexcept nogil

# A pool has one owner, the application, and no count. Room for `count` upstreams, none filled in; or NULL.
cdef pool_t *pool_new(uint32_t count) noexcept nogil
# With the references in it; NULL is allowed.
cdef void pool_free(pool_t *pool) noexcept nogil


cdef inline pool_t *pool_of(app_t *app) noexcept nogil:
    """Borrowed: a worker may read it within one step, anybody else while nobody replaces it."""
    return <pool_t *>word_read(&app.pool)


cdef inline pool_t *pool_replace(app_t *app, pool_t *pool) noexcept nogil:
    """Makes it the application's. The one before is freed when every worker has gone round its loop, since
    one may be reading it; NULL: there was none."""
    return <pool_t *>word_exchange(&app.pool, <uint64_t>pool)


# NULL is allowed in all of them.
cdef void name_unref(name_t *name) noexcept nogil
cdef void limiter_unref(limiter_t *limiter) noexcept nogil
cdef void upstream_unref(upstream_t *upstream) noexcept nogil
cdef void app_unref(app_t *app) noexcept nogil
cdef void tls_unref(tls_generation_t *tls) noexcept nogil
cdef void verdict_unref(verdict_t *verdict) noexcept nogil
cdef void policy_unref(policy_t *policy) noexcept nogil
cdef void listener_unref(listener_t *listener) noexcept nogil
cdef void snapshot_unref(snapshot_t *snapshot) noexcept nogil
