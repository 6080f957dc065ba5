"""A bounded queue for many writers and readers without a lock.

D. Vyukov's bounded MPMC queue: each cell carries a sequence that says whose turn it is, so a writer
and a reader meet on the cell and not on a common counter. Nobody waits: full and empty are answers.

Waking costs a system call, so a reader first says that it will sleep and looks once more; a writer
looks at that flag after its item is in. Both touch the flag by read-modify-write, so one of the two
sees the other and a wake-up is never lost.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free

from lbcore.sys.atomics cimport (
    counter_add,
    gauge_read,
    gauge_swap,
    word_exchange,
    word_read,
    word_read_ordered,
    word_t,
    word_write,
)
from lbcore.sys.linux cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    aligned_alloc,
    close,
    eventfd,
    memcpy,
    memset,
    read,
    write,
)


cdef bint ring_init(ring_t *ring, uint32_t capacity, uint32_t item_bytes) noexcept nogil:
    cdef uint64_t i
    memset(ring, 0, sizeof(ring_t))
    ring.wake_fd = -1
    ring.mask = capacity - 1
    ring.item_bytes = item_bytes
    ring.stride = <uint32_t>((sizeof(word_t) + item_bytes + 7) & ~<size_t>7)
    ring.cells = <uint8_t *>aligned_alloc(64, ((<size_t>ring.stride * capacity) + 63) & ~<size_t>63)
    if ring.cells == NULL:
        return False
    for i in range(capacity):
        word_write(<word_t *>(ring.cells + i * ring.stride), i)
    ring.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    return ring.wake_fd >= 0


cdef void ring_fini(ring_t *ring) noexcept nogil:
    free(ring.cells)
    ring.cells = NULL
    if ring.wake_fd >= 0:
        close(ring.wake_fd)
    ring.wake_fd = -1


cdef bint ring_push(ring_t *ring, const void *item) noexcept nogil:
    cdef int64_t at = gauge_read(&ring.tail)
    cdef int64_t lead
    cdef uint8_t *cell
    while True:
        cell = ring.cells + (<uint64_t>at & ring.mask) * ring.stride
        lead = <int64_t>word_read(<word_t *>cell) - at
        if lead == 0:
            if gauge_swap(&ring.tail, at, at + 1):
                break
        elif lead < 0:
            counter_add(&ring.dropped, 1)
            return False
        at = gauge_read(&ring.tail)
    memcpy(cell + sizeof(word_t), item, ring.item_bytes)
    word_write(<word_t *>cell, <uint64_t>(at + 1))
    return True


cdef bint ring_pop(ring_t *ring, void *out_item) noexcept nogil:
    cdef int64_t at = gauge_read(&ring.head)
    cdef int64_t lead
    cdef uint8_t *cell
    while True:
        cell = ring.cells + (<uint64_t>at & ring.mask) * ring.stride
        lead = <int64_t>word_read(<word_t *>cell) - (at + 1)
        if lead == 0:
            if gauge_swap(&ring.head, at, at + 1):
                break
        elif lead < 0:
            return False
        at = gauge_read(&ring.head)
    memcpy(out_item, cell + sizeof(word_t), ring.item_bytes)
    word_write(<word_t *>cell, <uint64_t>at + ring.mask + 1)
    return True


cdef void ring_wake(ring_t *ring) noexcept nogil:
    cdef uint64_t one = 1
    if word_read_ordered(&ring.sleeping) and word_exchange(&ring.sleeping, 0):
        write(ring.wake_fd, &one, sizeof(one))


cdef bint ring_may_sleep(ring_t *ring) noexcept nogil:
    cdef int64_t at
    word_exchange(&ring.sleeping, 1)
    at = gauge_read(&ring.head)
    if <int64_t>word_read(<word_t *>(ring.cells + (<uint64_t>at & ring.mask) * ring.stride)) - (at + 1) >= 0:
        word_exchange(&ring.sleeping, 0)
        return False
    return True


cdef void ring_awake(ring_t *ring) noexcept nogil:
    cdef uint64_t count
    word_exchange(&ring.sleeping, 0)
    read(ring.wake_fd, &count, sizeof(count))
