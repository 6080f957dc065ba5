"""Bounded queues between threads: inboxes, questions, records."""

from libc.stdint cimport uint32_t

from lbcore.structs cimport ring_t


# `capacity` is a power of two. False: out of memory or out of descriptors.
cdef bint ring_init(ring_t *ring, uint32_t capacity, uint32_t item_bytes) noexcept nogil
cdef void ring_fini(ring_t *ring) noexcept nogil
# Copies the item in. False: full (counted in `dropped`).
cdef bint ring_push(ring_t *ring, const void *item) noexcept nogil
# Copies the oldest item out. False: empty.
cdef bint ring_pop(ring_t *ring, void *out_item) noexcept nogil
# Wakes a reader that announced its sleep; one system call only when it did.
cdef void ring_wake(ring_t *ring) noexcept nogil
# The reader says it will sleep on wake_fd. True: it may; False: items came, read on.
cdef bint ring_may_sleep(ring_t *ring) noexcept nogil
# Empties wake_fd after waking.
cdef void ring_awake(ring_t *ring) noexcept nogil
