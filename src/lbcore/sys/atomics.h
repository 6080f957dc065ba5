/* C11 atomics, wrapped so that Cython cannot touch them by accident.
 *
 * Cython has no _Atomic: with a plain ctypedef, `x += 1` compiles to an atomic load and an atomic
 * store, which loses updates without a warning. Each kind is therefore a struct that atomics.pxd
 * declares opaque, and the only way in is a function that names its memory order.
 *
 * Alignment lives here too, for the same reason: Cython cannot spell _Alignas. */
#ifndef LBCORE_ATOMICS_H
#define LBCORE_ATOMICS_H

#include <stdatomic.h>
#include <stdint.h>

/* A level that goes up and down, alone on its cache line: the in-flight count of an upstream is
 * written by every worker. */
typedef struct {
    _Alignas(64) _Atomic int64_t value;
} gauge_t;

/* A number that only grows; statistics, so relaxed is enough. */
typedef struct {
    _Atomic uint64_t value;
} counter_t;

/* A word that is compared and swapped: times of the limiter, ring sequences. */
typedef struct {
    _Atomic uint64_t value;
} word_t;

/* How many own a cell. */
typedef struct {
    _Atomic int64_t value;
} refs_t;

_Static_assert(sizeof(gauge_t) == 64, "a gauge fills a cache line");

/* ---- gauge ---- */
static inline int64_t gauge_read(const gauge_t *gauge) {
    return atomic_load_explicit(&gauge->value, memory_order_acquire);
}
static inline int64_t gauge_take(gauge_t *gauge) { /* the level after */
    return atomic_fetch_add_explicit(&gauge->value, 1, memory_order_acq_rel) + 1;
}
static inline int64_t gauge_give(gauge_t *gauge) { /* the level after */
    return atomic_fetch_sub_explicit(&gauge->value, 1, memory_order_acq_rel) - 1;
}
static inline int gauge_swap(gauge_t *gauge, int64_t seen, int64_t wanted) {
    return atomic_compare_exchange_strong_explicit(&gauge->value, &seen, wanted,
                                                   memory_order_acq_rel, memory_order_acquire);
}
/* One more unless that would pass the cap: 1 taken, 0 full. */
static inline int gauge_take_below(gauge_t *gauge, int64_t max) {
    int64_t seen = atomic_load_explicit(&gauge->value, memory_order_acquire);
    do {
        if (seen >= max) return 0;
    } while (!atomic_compare_exchange_weak_explicit(&gauge->value, &seen, seen + 1,
                                                    memory_order_acq_rel, memory_order_acquire));
    return 1;
}
/* One less unless that would go below zero: 1 given, 0 nothing was taken. */
static inline int gauge_give_above(gauge_t *gauge) {
    int64_t seen = atomic_load_explicit(&gauge->value, memory_order_acquire);
    do {
        if (seen <= 0) return 0;
    } while (!atomic_compare_exchange_weak_explicit(&gauge->value, &seen, seen - 1,
                                                    memory_order_acq_rel, memory_order_acquire));
    return 1;
}

/* ---- counter ---- */
static inline void counter_add(counter_t *counter, uint64_t amount) {
    atomic_fetch_add_explicit(&counter->value, amount, memory_order_relaxed);
}
static inline uint64_t counter_next(counter_t *counter) { /* the value before */
    return atomic_fetch_add_explicit(&counter->value, 1, memory_order_relaxed);
}
static inline uint64_t counter_read(const counter_t *counter) {
    return atomic_load_explicit(&counter->value, memory_order_relaxed);
}

/* ---- word ---- */
static inline uint64_t word_read(const word_t *word) {
    return atomic_load_explicit(&word->value, memory_order_acquire);
}
static inline void word_write(word_t *word, uint64_t value) {
    atomic_store_explicit(&word->value, value, memory_order_release);
}
static inline int word_swap(word_t *word, uint64_t seen, uint64_t wanted) {
    return atomic_compare_exchange_strong_explicit(&word->value, &seen, wanted,
                                                   memory_order_acq_rel, memory_order_acquire);
}
static inline uint64_t word_exchange(word_t *word, uint64_t wanted) { /* sequentially consistent */
    return atomic_exchange_explicit(&word->value, wanted, memory_order_seq_cst);
}
static inline void word_subtract(word_t *word, uint64_t amount) {
    atomic_fetch_sub_explicit(&word->value, amount, memory_order_acq_rel);
}
static inline uint64_t word_add(word_t *word, uint64_t amount) { /* the value after */
    return atomic_fetch_add_explicit(&word->value, amount, memory_order_acq_rel) + amount;
}
/* Reads as a read-modify-write: either it sees what word_exchange wrote, or that exchange comes later
 * and then sees everything this thread wrote before. No fence, which ThreadSanitizer cannot follow. */
static inline uint64_t word_read_ordered(word_t *word) {
    return atomic_fetch_add_explicit(&word->value, 0, memory_order_seq_cst);
}

/* ---- refs ---- */
static inline void refs_start(refs_t *refs) {
    atomic_store_explicit(&refs->value, 1, memory_order_relaxed);
}
static inline void refs_take(refs_t *refs) {
    atomic_fetch_add_explicit(&refs->value, 1, memory_order_relaxed);
}
static inline int refs_give(refs_t *refs) { /* 1: that was the last one, free it */
    return atomic_fetch_sub_explicit(&refs->value, 1, memory_order_acq_rel) == 1;
}

#endif
