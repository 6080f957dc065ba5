"""Passive health, and the flags that checks and operators set.

`failures_max` failed dials in a row, or as many connections in a row that are reset before they have a byte,
put an upstream into quarantine. Without that a dead one, whose count is always lowest, would win every pick.
When its time is over, one connection may find out whether it is back (the half-open state of a circuit
breaker): a crowd that had waited for that moment would fail with it. If the dial fails, the next quarantine
is twice as long, up to 32 times the first, and up to a quarter longer by chance, so that many upstreams, or
many balancers, do not try at the same moment. Whoever was fine for as long as its last quarantine begins
anew. A passed check ends a quarantine and its history.

At most `quarantined_max` of a pool are out at once, exactly, those that are down or draining counted in:
two threads that each count the others and then put theirs out would pass the maximum together, so one
decides at a time. Who comes while somebody decides does not wait: it puts nobody out, and the next failure
of that upstream decides again.

Any thread, no lock.
"""

from libc.stdint cimport uint32_t, uint64_t

from lbcore.parts.cells cimport pool_of
from lbcore.parts.mixing cimport mixed
from lbcore.structs cimport pool_t
from lbcore.sys.atomics cimport counter_add, word_add, word_swap, word_t, word_write

cdef enum:
    DOUBLINGS_MAX = 5


cdef void health_dialled(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    if word_read(&upstream.failing) != 0:
        word_write(&upstream.failing, 0)
    if word_read(&upstream.quarantined_until_ns) != 0:
        come_back(app, upstream, now_ns)


cdef void health_failed(app_t *app, upstream_t *upstream, bint probing, uint64_t now_ns) noexcept nogil:
    counter_add(&upstream.errors, 1)
    if word_read(&upstream.quarantined_until_ns) == 0:
        count_failure(app, upstream, &upstream.failing, now_ns)
    elif probing:                                            # else it began to dial before that
        quarantine(app, upstream, now_ns)


cdef void health_was_reset(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    counter_add(&upstream.errors, 1)
    if word_read(&upstream.quarantined_until_ns) == 0:
        count_failure(app, upstream, &upstream.resetting, now_ns)


cdef void health_had_bytes(upstream_t *upstream) noexcept nogil:
    if word_read(&upstream.resetting) != 0:
        word_write(&upstream.resetting, 0)


cdef bint is_out(upstream_t *upstream) noexcept nogil:
    return word_read(&upstream.quarantined_until_ns) != 0 or word_read(&upstream.flags) != 0


cdef void count_failure(app_t *app, upstream_t *upstream, word_t *in_a_row, uint64_t now_ns) noexcept nogil:
    cdef pool_t *pool
    cdef uint32_t out = 0
    cdef uint32_t i
    if word_add(in_a_row, 1) < app.failures_max or app.failures_max == 0:
        return
    if not word_swap(&app.quarantining, 0, 1):
        return
    pool = pool_of(app)
    for i in range(pool.count):
        if pool.upstreams[i] is not upstream:
            out += is_out(pool.upstreams[i])
    if out < pool.quarantined_max:
        quarantine(app, upstream, now_ns)
    word_write(&app.quarantining, 0)


# ---- quarantine ----------------------------------------------------------------------------------

cdef uint64_t length_ns(app_t *app, uint64_t in_a_row) noexcept nogil:
    """Of the first, second, ... quarantine in a row, without what chance adds."""
    cdef uint64_t doublings = in_a_row - 1
    return app.quarantine_ns << (doublings if doublings < DOUBLINGS_MAX else <uint64_t>DOUBLINGS_MAX)


cdef void quarantine(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    cdef uint64_t in_a_row = word_read(&upstream.backoff)
    cdef uint64_t returned_ns = word_read(&upstream.returned_ns)
    cdef uint64_t length
    if in_a_row > 0 and returned_ns > 0 and now_ns > returned_ns + length_ns(app, in_a_row):
        in_a_row = 0
    length = length_ns(app, in_a_row + 1)
    word_write(&upstream.backoff, in_a_row + 1)
    word_write(&upstream.returned_ns, 0)
    counter_add(&upstream.quarantines, 1)
    counter_add(&app.health_turns, 1)
    word_write(&upstream.quarantined_until_ns,
               now_ns + length + (length >> 10) * (mixed(now_ns ^ upstream.hash) & 255))


cdef void come_back(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    word_write(&upstream.failing, 0)
    word_write(&upstream.resetting, 0)
    word_write(&upstream.returned_ns, now_ns)
    health_joined(app, upstream, now_ns)
    word_write(&upstream.quarantined_until_ns, 0)
    counter_add(&app.health_turns, 1)


cdef bint health_probe(app_t *app, upstream_t *upstream, uint64_t now_ns, bint *out_probing) noexcept nogil:
    cdef uint64_t until_ns = word_read(&upstream.quarantined_until_ns)
    out_probing[0] = until_ns != 0
    if until_ns == 0:
        return True
    # Others find it in quarantine until this connection knows; its dial ends by then in any case.
    return until_ns <= now_ns and word_swap(
        &upstream.quarantined_until_ns, until_ns, now_ns + 2 * app.connect_timeout_ns)


cdef void health_gave_up(upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    cdef uint64_t until_ns = word_read(&upstream.quarantined_until_ns)
    if until_ns != 0:                    # it may come back meanwhile: a check has passed
        word_swap(&upstream.quarantined_until_ns, until_ns, now_ns)


# ---- checks and operators ------------------------------------------------------------------------

cdef void health_set(upstream_t *upstream, upstream_flag_t flag, bint on) noexcept nogil:
    cdef uint64_t flags = word_read(&upstream.flags)
    while not word_swap(&upstream.flags, flags, flags | <uint64_t>flag if on else flags & ~<uint64_t>flag):
        flags = word_read(&upstream.flags)


cdef void health_passed(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    cdef bint was_out = word_read(&upstream.quarantined_until_ns) != 0
    if word_read(&upstream.flags) & UPSTREAM_DOWN:
        health_set(upstream, UPSTREAM_DOWN, False)
        was_out = True
    word_write(&upstream.backoff, 0)
    if was_out:
        come_back(app, upstream, now_ns)


cdef void health_joined(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    if app.slow_start_ns != 0:
        word_write(&upstream.ramp_from_ns, now_ns)


cdef void health_pool_changed(app_t *app, uint64_t now_ns) noexcept nogil:
    """Those that are one too many may be tried at once, each by a single connection as ever."""
    cdef pool_t *pool = pool_of(app)
    cdef uint64_t until_ns
    cdef uint32_t out = 0
    cdef uint32_t i
    for i in range(pool.count):
        until_ns = word_read(&pool.upstreams[i].quarantined_until_ns)
        if until_ns > now_ns:
            out += 1
            if out > pool.quarantined_max:
                word_swap(&pool.upstreams[i].quarantined_until_ns, until_ns, now_ns)
