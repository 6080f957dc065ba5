"""Least connections by atomic reserve.

The scan looks for the lowest (in_flight + 1) / weight, compared crosswise in 64 bits so that nothing is
divided, and reserves by compare-and-swap on that gauge, with the cap tested in the same step. When
another worker was faster, the scan starts again: between look and swap the other gauges can only have
gone up or been given back, so the choice was the lowest at that moment. Counting before the dial is
what makes a burst spread: a slow upstream's pending dials weigh like open connections.

The scan starts one further for each connection, so ties rotate. Not for each pick: a connection that
picks again after a failed dial would move the turn on, and with two upstreams of which one is dead every
connection would come to the dead one first.

Passive health: `failures_max` failed dials in a row take an upstream out of the pool for `eject_ns`, or
a dead one, whose count is always lowest, would win every pick. At most `ejected_max` are out at once,
exactly: two threads that each count the others and then eject theirs would pass the maximum together, so
one decides at a time. Who comes while somebody decides does not wait: it ejects nothing, and the next
failed dial of that upstream decides again.

Any thread, no lock.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from lbcore.sys.atomics cimport (
    counter_add,
    counter_next,
    gauge_give,
    gauge_read,
    gauge_swap,
    word_add,
    word_read,
    word_swap,
    word_write,
)


cdef bint was_tried(uint32_t index, const uint16_t *tried, int tried_count) noexcept nogil:
    cdef int i
    for i in range(tried_count):
        if tried[i] == index:
            return True
    return False


cdef uint32_t balance_turn(app_t *app) noexcept nogil:
    return <uint32_t>(counter_next(&app.rotor) % app.upstream_count) if app.upstream_count > 0 else 0


cdef int balance_pick(app_t *app, uint32_t start, const uint16_t *tried, int tried_count,
                      uint64_t now_ns) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t index
    cdef int best
    cdef int64_t best_level
    cdef int64_t level
    cdef upstream_t *upstream
    while True:
        best = -1
        best_level = 0
        for i in range(app.upstream_count):
            index = start + i
            if index >= app.upstream_count:
                index -= app.upstream_count
            upstream = app.upstreams[index]
            level = gauge_read(&upstream.in_flight)
            if upstream.in_flight_max > 0 and level >= upstream.in_flight_max:
                continue
            if best >= 0 and not (level + 1) * <int64_t>app.upstreams[best].weight < (
                best_level + 1
            ) * <int64_t>upstream.weight:
                continue
            if balance_is_ejected(upstream, now_ns) or was_tried(index, tried, tried_count):
                continue
            best = <int>index
            best_level = level
        if best < 0:
            return -1
        if gauge_swap(&app.upstreams[best].in_flight, best_level, best_level + 1):
            counter_add(&app.upstreams[best].picked, 1)
            return best


cdef void balance_give(upstream_t *upstream) noexcept nogil:
    gauge_give(&upstream.in_flight)


cdef void balance_dialled(upstream_t *upstream) noexcept nogil:
    if word_read(&upstream.failing) != 0:
        word_write(&upstream.failing, 0)


cdef void balance_failed(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    cdef uint32_t others = 0
    cdef uint32_t i
    counter_add(&upstream.errors, 1)
    if word_add(&upstream.failing, 1) < app.failures_max or app.failures_max == 0:
        return
    if not word_swap(&app.ejecting, 0, 1):
        return
    for i in range(app.upstream_count):
        if app.upstreams[i] is not upstream:
            others += balance_is_ejected(app.upstreams[i], now_ns)
    if others < app.ejected_max:
        word_write(&upstream.ejected_until_ns, now_ns + app.eject_ns)
    word_write(&app.ejecting, 0)


cdef bint balance_is_ejected(upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    return word_read(&upstream.ejected_until_ns) > now_ns
