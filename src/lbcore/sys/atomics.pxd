"""Atomic types, opaque on purpose: see atomics.h for why and for the memory orders."""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "atomics.h" nogil:
    ctypedef struct gauge_t:
        pass
    ctypedef struct counter_t:
        pass
    ctypedef struct word_t:
        pass
    ctypedef struct refs_t:
        pass

    int64_t gauge_read(const gauge_t *gauge)
    int64_t gauge_take(gauge_t *gauge)
    int64_t gauge_give(gauge_t *gauge)
    bint gauge_swap(gauge_t *gauge, int64_t seen, int64_t wanted)
    bint gauge_take_below(gauge_t *gauge, int64_t max)
    bint gauge_give_above(gauge_t *gauge)

    void counter_add(counter_t *counter, uint64_t amount)
    uint64_t counter_next(counter_t *counter)
    uint64_t counter_read(const counter_t *counter)

    uint64_t word_read(const word_t *word)
    void word_write(word_t *word, uint64_t value)
    bint word_swap(word_t *word, uint64_t seen, uint64_t wanted)
    uint64_t word_exchange(word_t *word, uint64_t wanted)
    void word_subtract(word_t *word, uint64_t amount)
    uint64_t word_add(word_t *word, uint64_t amount)
    uint64_t word_read_ordered(word_t *word)

    void refs_start(refs_t *refs)
    void refs_take(refs_t *refs)
    bint refs_give(refs_t *refs)
