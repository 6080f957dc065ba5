"""Making and freeing the reference-counted cells.

A cell is frozen once it is published, but for its atomic counters, so readers need no lock: they hold
a reference and the memory stays.
"""

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from lbcore.parts.opening cimport window_free
from lbcore.sys.atomics cimport refs_give, refs_start
from lbcore.sys.linux cimport aligned_alloc, close, memcpy, memset


cdef void *lines_new(size_t size) noexcept nogil:
    cdef size_t rounded = (size + 63) & ~<size_t>63
    cdef void *memory = aligned_alloc(64, rounded)
    if memory != NULL:
        memset(memory, 0, rounded)
    return memory


cdef name_t *name_new(const char *text, uint32_t length) noexcept nogil:
    cdef name_t *name = <name_t *>calloc(1, sizeof(name_t) + length)
    if name != NULL:
        refs_start(&name.refs)
        name.length = length
        memcpy(name.text, text, length)
    return name


cdef limiter_t *limiter_new() noexcept nogil:
    cdef limiter_t *limiter = <limiter_t *>lines_new(sizeof(limiter_t))
    if limiter != NULL:
        refs_start(&limiter.refs)
    return limiter


cdef upstream_t *upstream_new() noexcept nogil:
    cdef upstream_t *upstream = <upstream_t *>lines_new(sizeof(upstream_t))
    if upstream != NULL:
        refs_start(&upstream.refs)
    return upstream


cdef pool_t *pool_new(uint32_t count) noexcept nogil:
    cdef pool_t *pool = <pool_t *>calloc(1, sizeof(pool_t) + count * sizeof(upstream_t *))
    if pool != NULL:
        pool.count = count
    return pool


cdef app_t *app_new() noexcept nogil:
    cdef app_t *app = <app_t *>lines_new(sizeof(app_t))
    if app != NULL:
        refs_start(&app.refs)
    return app


cdef tls_generation_t *tls_new() noexcept nogil:
    cdef tls_generation_t *tls = <tls_generation_t *>calloc(1, sizeof(tls_generation_t))
    if tls != NULL:
        refs_start(&tls.refs)
    return tls


cdef verdict_t *verdict_new(uint32_t key_length) noexcept nogil:
    cdef verdict_t *verdict = <verdict_t *>calloc(1, sizeof(verdict_t) + key_length)
    if verdict != NULL:
        refs_start(&verdict.refs)
        verdict.key_length = key_length
    return verdict


cdef listener_t *listener_new() noexcept nogil:
    cdef listener_t *listener = <listener_t *>calloc(1, sizeof(listener_t))
    if listener != NULL:
        refs_start(&listener.refs)
        listener.fd = -1
    return listener


cdef snapshot_t *snapshot_new(uint32_t listener_count) noexcept nogil:
    cdef snapshot_t *snapshot = <snapshot_t *>calloc(1, sizeof(snapshot_t))
    if snapshot == NULL:
        return NULL
    refs_start(&snapshot.refs)
    snapshot.listener_count = listener_count
    snapshot.listeners = <listener_t **>calloc(listener_count + 1, sizeof(listener_t *))
    if snapshot.listeners == NULL:
        free(snapshot)
        return NULL
    return snapshot


cdef void name_unref(name_t *name) noexcept nogil:
    if name != NULL and refs_give(&name.refs):
        free(name)


cdef void limiter_unref(limiter_t *limiter) noexcept nogil:
    cdef limiter_t *parent
    while limiter != NULL and refs_give(&limiter.refs):
        parent = limiter.parent
        window_free(limiter.window)
        free(limiter.succession)
        free(limiter)
        limiter = parent


cdef void upstream_unref(upstream_t *upstream) noexcept nogil:
    if upstream != NULL and refs_give(&upstream.refs):
        name_unref(upstream.name)
        name_unref(upstream.tls_name)
        tls_unref(upstream.tls)
        free(upstream)


cdef void pool_free(pool_t *pool) noexcept nogil:
    cdef uint32_t i
    if pool == NULL:
        return
    for i in range(pool.count):
        upstream_unref(pool.upstreams[i])
    free(pool)


cdef void app_unref(app_t *app) noexcept nogil:
    if app == NULL or not refs_give(&app.refs):
        return
    pool_free(pool_of(app))
    limiter_unref(app.limiter)
    name_unref(app.name)
    free(app)


cdef void tls_unref(tls_generation_t *tls) noexcept nogil:
    if tls != NULL and refs_give(&tls.refs):
        if tls.config != NULL:
            tls.engine.config_free(tls.config)
        free(tls.revoked)
        free(tls)


cdef void verdict_unref(verdict_t *verdict) noexcept nogil:
    if verdict != NULL and refs_give(&verdict.refs):
        name_unref(verdict.client)
        limiter_unref(verdict.limiter)
        free(verdict)


cdef void policy_unref(policy_t *policy) noexcept nogil:
    cdef uint32_t i
    if policy == NULL or not refs_give(&policy.refs):
        return
    for i in range(policy.client_count):
        name_unref(policy.clients[i])
    for i in range(policy.app_count):
        name_unref(policy.apps[i])
    free(policy.clients)
    free(policy.apps)
    free(policy.allowed)
    free(policy.entries)
    free(policy)


cdef void listener_unref(listener_t *listener) noexcept nogil:
    if listener != NULL and refs_give(&listener.refs):
        if listener.fd >= 0:
            close(listener.fd)
        app_unref(listener.app)
        tls_unref(listener.tls)
        free(listener.fronts)
        free(listener)


cdef void snapshot_unref(snapshot_t *snapshot) noexcept nogil:
    cdef uint32_t i
    if snapshot == NULL or not refs_give(&snapshot.refs):
        return
    for i in range(snapshot.listener_count):
        listener_unref(snapshot.listeners[i])
    policy_unref(snapshot.policy)
    free(snapshot.listeners)
    free(snapshot)
