"""The upstreams' loop: one epoll set, one thread, no interpreter.

The source sends from one buffer, the sink has the kernel drop the bytes (MSG_TRUNC), so bulk costs little.
The source does not use sendfile: skbs made of single pages are dearer for whoever reads them (measured: a
third more per byte), and few servers send such.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc, strtoull

from lbcore.sys.linux cimport (
    EAGAIN,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    IPPROTO_TCP,
    MSG_NOSIGNAL,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    TCP_NODELAY,
    accept4,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    errno,
    memcmp,
    memcpy,
    recv,
    send,
    setsockopt,
)

cdef extern from "sys/socket.h" nogil:
    int MSG_TRUNC

cdef extern from "string.h" nogil:
    void *memchr(const void *where, int byte, size_t length)

cdef enum:
    EVENTS = 256
    ROOM = 1 << 18               # bytes that are sent or taken at a time
    LINE = 64                    # the longest first line


cdef enum job_t:
    CHOOSE                       # the first line is not complete yet
    ECHO
    SINK
    SOURCE


cdef struct peer_t:
    int fd
    job_t job
    uint32_t watched
    uint64_t left                # bytes to take or to send
    uint64_t asked               # N of the line
    char[LINE + 1] line
    size_t line_length
    uint8_t *unsent              # of an echo; NULL: nothing
    size_t unsent_length
    size_t unsent_at


cdef struct upstream_t:
    int listener
    int epoll
    uint8_t *room
    const uint8_t *pattern
    size_t pattern_length


# Each step answers whether the connection goes on.

cdef bint step(upstream_t *self, peer_t *peer) noexcept nogil:
    if peer.job == SOURCE:
        return feed(self, peer)
    if peer.unsent != NULL:
        return send_unsent(peer)
    if peer.job == ECHO:
        return echo(self, peer)
    if peer.job == SINK:
        return swallow(self, peer)
    return choose(self, peer)


cdef bint choose(upstream_t *self, peer_t *peer) noexcept nogil:
    """Takes the first line. Only an echo or a sink has anything behind it."""
    cdef ssize_t got = recv(peer.fd, self.room, ROOM, 0)
    cdef const uint8_t *end
    cdef size_t length
    if got <= 0:
        return got < 0 and errno == EAGAIN
    end = <const uint8_t *>memchr(self.room, 10, <size_t>got)
    length = <size_t>got if end == NULL else <size_t>(end - self.room) + 1
    if peer.line_length + length > LINE:
        length = LINE - peer.line_length
        end = self.room              # long enough to see that it is an echo, or nothing that is known
    memcpy(peer.line + peer.line_length, self.room, length)
    peer.line_length += length
    peer.line[peer.line_length] = 0
    return end == NULL or chosen(self, peer, length, <size_t>got)


cdef bint chosen(upstream_t *self, peer_t *peer, size_t used, size_t got) noexcept nogil:
    """What the line asks for; behind it, `got` - `used` bytes are there already."""
    cdef size_t length = peer.line_length
    peer.line_length = 0
    if memcmp(peer.line, b"echo ", 5) == 0:
        peer.job = ECHO
        return send_back(peer, <uint8_t *>peer.line, length) and send_back(peer, self.room + used, got - used)
    if memcmp(peer.line, b"sink ", 5) == 0:
        peer.job = SINK
        peer.asked = strtoull(peer.line + 5, NULL, 10)
        peer.left = peer.asked
        return swallowed(peer, got - used)
    if memcmp(peer.line, b"source ", 7) == 0:
        peer.job = SOURCE
        peer.asked = strtoull(peer.line + 7, NULL, 10)
        peer.left = peer.asked
        return feed(self, peer)
    return False


cdef bint echo(upstream_t *self, peer_t *peer) noexcept nogil:
    cdef ssize_t got = recv(peer.fd, self.room, ROOM, 0)
    if got <= 0:
        return got < 0 and errno == EAGAIN
    return send_back(peer, self.room, <size_t>got)


cdef bint send_back(peer_t *peer, const uint8_t *data, size_t length) noexcept nogil:
    """What the kernel does not take is kept; until it has gone nothing more is read."""
    cdef ssize_t sent = 0
    cdef size_t before = peer.unsent_length - peer.unsent_at if peer.unsent != NULL else 0
    cdef uint8_t *unsent
    if length == 0:
        return True
    if before == 0:
        sent = send(peer.fd, data, length, MSG_NOSIGNAL)
        if sent < 0 and errno != EAGAIN:
            return False
    if sent < 0:
        sent = 0
    if <size_t>sent == length:
        return True
    unsent = <uint8_t *>malloc(before + length - <size_t>sent)
    if unsent == NULL:
        return False
    memcpy(unsent, peer.unsent + peer.unsent_at, before)
    memcpy(unsent + before, data + sent, length - <size_t>sent)
    free(peer.unsent)
    peer.unsent = unsent
    peer.unsent_length = before + length - <size_t>sent
    peer.unsent_at = 0
    return True


cdef bint send_unsent(peer_t *peer) noexcept nogil:
    cdef ssize_t sent = send(peer.fd, peer.unsent + peer.unsent_at, peer.unsent_length - peer.unsent_at,
                             MSG_NOSIGNAL)
    if sent < 0:
        return errno == EAGAIN
    peer.unsent_at += <size_t>sent
    if peer.unsent_at == peer.unsent_length:
        free(peer.unsent)
        peer.unsent = NULL
    return True


cdef bint swallow(upstream_t *self, peer_t *peer) noexcept nogil:
    cdef ssize_t got = recv(peer.fd, self.room, peer.left if peer.left < ROOM else ROOM, MSG_TRUNC)
    if got <= 0:
        return got < 0 and errno == EAGAIN
    return swallowed(peer, <size_t>got)


cdef bint swallowed(peer_t *peer, size_t count) noexcept nogil:
    """Reports how many were taken, and only when that is how many there were to be."""
    cdef char[LINE] report
    cdef int length
    if count > peer.left:
        return False
    peer.left -= count
    if peer.left > 0:
        return True
    peer.job = CHOOSE
    length = snprintf(report, LINE, b"%llu\n", <unsigned long long>peer.asked)
    return send_back(peer, <uint8_t *>report, <size_t>length)


cdef bint feed(upstream_t *self, peer_t *peer) noexcept nogil:
    """A piece of the pattern; others get their turn after each."""
    cdef size_t at = <size_t>((peer.asked - peer.left) % self.pattern_length)
    cdef size_t length = self.pattern_length - at
    cdef ssize_t sent
    if length > ROOM:
        length = ROOM
    if length > peer.left:
        length = <size_t>peer.left
    sent = send(peer.fd, self.pattern + at, length, MSG_NOSIGNAL)
    if sent < 0:
        return errno == EAGAIN
    peer.left -= <uint64_t>sent
    if peer.left == 0:
        peer.job = CHOOSE
    return True


cdef bint watch(upstream_t *self, peer_t *peer) noexcept nogil:
    cdef epoll_event event
    event.events = EPOLLOUT if peer.job == SOURCE or peer.unsent != NULL else EPOLLIN
    if event.events == peer.watched:
        return True
    event.data.u64 = <uint64_t>peer
    if epoll_ctl(self.epoll, EPOLL_CTL_MOD if peer.watched else EPOLL_CTL_ADD, peer.fd, &event) != 0:
        return False
    peer.watched = event.events
    return True


cdef void drop(peer_t *peer) noexcept nogil:
    close(peer.fd)
    free(peer.unsent)
    free(peer)


cdef void take_all(upstream_t *self) noexcept nogil:
    """Accepts whoever is waiting."""
    cdef peer_t *peer
    cdef int one = 1
    cdef int fd
    while True:
        fd = accept4(self.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            return
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
        peer = <peer_t *>calloc(1, sizeof(peer_t))
        if peer == NULL:
            close(fd)
            return
        peer.fd = fd
        if not watch(self, peer):
            drop(peer)


cdef void serve_for_ever(upstream_t *self) noexcept nogil:
    cdef epoll_event[EVENTS] events
    cdef peer_t *peer
    cdef int count, i
    while True:
        count = epoll_wait(self.epoll, events, EVENTS, -1)
        for i in range(count):
            peer = <peer_t *>events[i].data.u64
            if peer == NULL:
                take_all(self)
            elif not step(self, peer) or not watch(self, peer):
                drop(peer)


def serve(int listener, bytes pattern):
    """Serves a listening, non-blocking socket until the process is ended. The source sends `pattern` over
    and over."""
    cdef upstream_t self
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u64 = 0
    self.listener = listener
    self.pattern = pattern
    self.pattern_length = len(pattern)
    self.room = <uint8_t *>malloc(ROOM)
    self.epoll = epoll_create1(EPOLL_CLOEXEC)
    if self.room == NULL or self.epoll < 0 or epoll_ctl(self.epoll, EPOLL_CTL_ADD, listener, &event) != 0:
        raise OSError(errno, "epoll of an upstream")
    with nogil:
        serve_for_ever(&self)
