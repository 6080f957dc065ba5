"""The epoll set of a worker: level-triggered, events carry slot and generation."""

from libc.stdint cimport uint32_t, uint64_t

from lbcore.structs cimport conn_t, leg_t


cdef enum event_kind_t:
    EVENT_CLIENT = 0
    EVENT_UPSTREAM = 1
    EVENT_LISTENER = 2
    EVENT_INBOX = 3


cdef inline uint64_t event_tag(event_kind_t kind, uint32_t index, uint32_t generation) noexcept nogil:
    """What an event says about itself: kind (2 bits), generation (30), slot (32)."""
    return (<uint64_t>kind << 62) | (<uint64_t>(generation & 0x3fffffff) << 32) | index


cdef inline event_kind_t tag_kind(uint64_t tag) noexcept nogil:
    return <event_kind_t>(tag >> 62)


cdef inline uint32_t tag_generation(uint64_t tag) noexcept nogil:
    return <uint32_t>(tag >> 32) & 0x3fffffff


cdef inline uint32_t tag_index(uint64_t tag) noexcept nogil:
    return <uint32_t>tag


# Watch `fd` for `events` under `tag`. 0 or an errno.
cdef int poller_add(int epoll_fd, int fd, uint32_t events, uint64_t tag) noexcept nogil
cdef void poller_remove(int epoll_fd, int fd) noexcept nogil

# Bring what epoll watches on a leg in line with `wanted`; one system call at most, none when nothing
# changed. A leg that has hung up and wants nothing leaves the set: HUP cannot be masked and would wake
# the worker for ever. 0 or an errno.
cdef int poller_want(int epoll_fd, conn_t *conn, leg_t *leg, uint32_t wanted) noexcept nogil
