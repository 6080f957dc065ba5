"""Latencies in nanoseconds, counted in buckets that are finer where times are shorter."""

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    FINE = 128                  # buckets for each doubling, so each is less than 1 % wide
    FINE_BITS = 7
    RANGE_BITS = 40             # 18 minutes; what is longer is in the last bucket
    BUCKETS = FINE * (RANGE_BITS - FINE_BITS + 1)


cdef struct counts_t:
    uint64_t counts[BUCKETS]
    uint64_t total
    uint64_t longest            # ns, exact


cdef inline int bits_of(uint64_t value) noexcept nogil:
    cdef int bits = 0
    while value >> bits:
        bits += 1
    return bits


cdef inline uint32_t bucket_of(uint64_t ns) noexcept nogil:
    """Below FINE a bucket for each nanosecond, then FINE for each doubling."""
    cdef int shift
    if ns >> RANGE_BITS:
        return BUCKETS - 1
    shift = bits_of(ns) - FINE_BITS - 1
    if shift < 0:
        shift = 0
    return <uint32_t>(shift * FINE + (ns >> shift))


cdef inline void counts_add(counts_t *counts, uint64_t ns) noexcept nogil:
    counts.counts[bucket_of(ns)] += 1
    counts.total += 1
    if ns > counts.longest:
        counts.longest = ns


cdef class Histogram:
    cdef counts_t counts
