"""Least connections by atomic reserve; or by client, where an application wants that.

The scan looks for the lowest (in_flight + 1) / weight, compared crosswise in 64 bits so that nothing is
divided, and reserves by compare-and-swap on that gauge, with the cap tested in the same step. When
another worker was faster, the scan starts again: between look and swap the other gauges can only have
gone up or been given back, so the choice was the lowest at that moment. Counting before the dial is
what makes a burst spread: a slow upstream's pending dials weigh like open connections.

The scan starts one further for each connection, so ties rotate. Not for each pick: a connection that
picks again after a failed dial would move the turn on, and with two upstreams of which one is dead every
connection would come to the dead one first.

Weights have eight more bits than the operator's, for the slow start of an upstream that comes into a pool at
work: with its count of zero it would get every new connection. Its weight grows from a sixteenth.

By client (rendezvous hashing, Thaler and Ravishankar, 1998): each pair of client and upstream has a score,
weighted as in Schindelhauer and Schomaker (2005), and the highest wins. An upstream that comes or goes moves
its own share of the clients and nobody else; one that is full or out leaves its clients to their second.

Any thread, no lock.
"""

from libc.math cimport log
from libc.stdint cimport int64_t, uint8_t

from lbcore.parts.cells cimport pool_of
from lbcore.parts.health cimport health_may_pick, health_probe
from lbcore.parts.mixing cimport mixed
from lbcore.structs cimport pool_t
from lbcore.sys.atomics cimport counter_add, gauge_give, gauge_read, gauge_swap, word_read, word_swap

cdef enum:
    WEIGHT_BITS = 8
    RAMP_LEAST = 16              # of 256: with less it would have nothing to warm up with


cdef bint was_tried(upstream_t *upstream, const uint16_t *tried, int tried_count) noexcept nogil:
    cdef int i
    for i in range(tried_count):
        if tried[i] == upstream.mark:
            return True
    return False


cdef bint is_full(upstream_t *upstream, int64_t level) noexcept nogil:
    return upstream.in_flight_max > 0 and level >= upstream.in_flight_max


cdef int64_t weight_of(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    cdef uint64_t weight = word_read(&upstream.weight)
    cdef uint64_t since_ns = word_read(&upstream.ramp_from_ns)
    cdef uint64_t part
    if since_ns == 0:
        return <int64_t>(weight << WEIGHT_BITS)
    part = (now_ns - since_ns) // ((app.slow_start_ns >> WEIGHT_BITS) + 1) if now_ns > since_ns else 0
    if part >= 1 << WEIGHT_BITS:
        word_swap(&upstream.ramp_from_ns, since_ns, 0)
        return <int64_t>(weight << WEIGHT_BITS)
    return <int64_t>(weight * (part if part > RAMP_LEAST else <uint64_t>RAMP_LEAST))


cdef bint reserve(app_t *app, upstream_t *upstream, int64_t level, uint64_t now_ns,
                  choice_t *out_choice) noexcept nogil:
    """False: somebody was faster."""
    if not gauge_swap(&upstream.in_flight, level, level + 1):
        return False
    if not health_probe(app, upstream, now_ns, &out_choice.probing):
        gauge_give(&upstream.in_flight)
        return False
    counter_add(&upstream.picked, 1)
    out_choice.upstream = upstream
    return True


cdef bint balance_pick(app_t *app, uint32_t turn, const uint16_t *tried, int tried_count,
                       uint64_t now_ns, choice_t *out_choice) noexcept nogil:
    cdef pool_t *pool = pool_of(app)
    cdef uint32_t start = turn % pool.count if pool.count > 0 else 0
    cdef uint32_t i
    cdef uint32_t index
    cdef int64_t level
    cdef int64_t weight
    cdef int64_t best_level
    cdef int64_t best_weight
    cdef upstream_t *best
    cdef upstream_t *upstream
    while True:
        best = NULL
        best_level = best_weight = 0
        for i in range(pool.count):
            index = start + i
            if index >= pool.count:
                index -= pool.count
            upstream = pool.upstreams[index]
            level = gauge_read(&upstream.in_flight)
            if is_full(upstream, level) or not health_may_pick(upstream, now_ns):
                continue
            weight = weight_of(app, upstream, now_ns)
            if best != NULL and not (level + 1) * best_weight < (best_level + 1) * weight:
                continue
            if was_tried(upstream, tried, tried_count):
                continue
            best = upstream
            best_level = level
            best_weight = weight
        if best == NULL:
            return False
        if reserve(app, best, best_level, now_ns, out_choice):
            return True


cdef void balance_give(upstream_t *upstream) noexcept nogil:
    gauge_give(&upstream.in_flight)


# ---- by client -----------------------------------------------------------------------------------

cdef uint64_t balance_hash(const void *data, size_t length) noexcept nogil:
    """FNV-1a."""
    cdef const uint8_t *octets = <const uint8_t *>data
    cdef uint64_t hash = <uint64_t>0xcbf29ce484222325
    cdef size_t i
    for i in range(length):
        hash = (hash ^ octets[i]) * <uint64_t>0x100000001b3
    return hash


cdef double score_of(uint64_t client, upstream_t *upstream, int64_t weight) noexcept nogil:
    """weight / -ln(a number between 0 and 1 that is the pair's own)."""
    cdef uint64_t pair = mixed(client ^ (upstream.hash * <uint64_t>0x9e3779b97f4a7c15))
    return <double>weight / -log((<double>(pair >> 11) + 0.5) / 9007199254740992.0)


cdef bint balance_pick_for(app_t *app, uint64_t client, const uint16_t *tried, int tried_count,
                           uint64_t now_ns, choice_t *out_choice) noexcept nogil:
    cdef pool_t *pool = pool_of(app)
    cdef uint32_t i
    cdef int64_t level
    cdef int64_t best_level
    cdef double score
    cdef double best_score
    cdef upstream_t *best
    cdef upstream_t *upstream
    while True:
        best = NULL
        best_level = 0
        best_score = 0.0
        for i in range(pool.count):
            upstream = pool.upstreams[i]
            level = gauge_read(&upstream.in_flight)
            if is_full(upstream, level) or not health_may_pick(upstream, now_ns):
                continue
            if was_tried(upstream, tried, tried_count):
                continue
            score = score_of(client, upstream, weight_of(app, upstream, now_ns))
            if score > best_score:
                best = upstream
                best_level = level
                best_score = score
        if best == NULL:
            return False
        if reserve(app, best, best_level, now_ns, out_choice):
            return True
