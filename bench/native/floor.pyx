"""The least that a proxy can do: what one end sends goes to the other, by the system calls that takes.

One epoll set, one thread, no interpreter; no TLS, no limits, no records, no timers, no health, and two
upstreams in turns. Little is read and sent; once a read fills the buffer that direction is spliced for good,
through a pipe of its own. It keeps no bytes but those in pipes: who does not take a few KiB is cut off.

So this is nobody's balancer. It shows what is left to be saved beside the kernel (floor.py).
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from lbcore.sys.linux cimport (
    AF_INET,
    EAGAIN,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    F_SETFL,
    F_SETPIPE_SZ,
    IPPROTO_TCP,
    MSG_NOSIGNAL,
    O_CLOEXEC,
    O_NONBLOCK,
    SHUT_WR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SPLICE_F_MOVE,
    SPLICE_F_NONBLOCK,
    TCP_NODELAY,
    accept4,
    close,
    connect,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    errno,
    fcntl,
    htons,
    pipe2,
    recv,
    send,
    setsockopt,
    shutdown,
    sockaddr,
    sockaddr_in,
    socket,
    splice,
)

cdef enum:
    LOOPBACK = 0x0100007f        # 127.0.0.1, network byte order
    EVENTS = 256
    LITTLE = 16384               # bytes; a read that fills this is the beginning of a bulk
    PIPE_BYTES = 1 << 20
    SPLICED = 224 << 10          # bytes that a pipe is filled with
    TURNS = 4                    # of filling and emptying a pipe, before the next event


cdef struct end_t:
    int fd
    uint32_t watched
    bint ended                   # nothing more comes from it
    bint passed_on               # the other one knows
    bint bulk
    int pipe_in                  # of what comes from it, for the other one
    int pipe_out
    uint32_t held                # bytes in that pipe
    end_t *other
    pair_t *pair


cdef struct pair_t:
    end_t[2] ends
    bint over
    pair_t *next


cdef struct floor_t:
    int listener
    int epoll
    sockaddr_in[2] upstreams
    uint32_t turn
    pair_t *over                 # freed after the events that may still name them
    uint8_t[LITTLE] room


# Each step answers whether the two go on.

cdef bint move(floor_t *self, end_t *end) noexcept nogil:
    cdef ssize_t got
    if end.bulk:
        return move_bulk(end)
    if end.ended:
        return True
    got = recv(end.fd, self.room, LITTLE, 0)
    if got < 0:
        return errno == EAGAIN
    if got == 0:
        end.ended = True
        return pass_on_end(end)
    if got == LITTLE and not begin_bulk(end):
        return False
    return send(end.other.fd, self.room, <size_t>got, MSG_NOSIGNAL) == got


cdef bint pass_on_end(end_t *end) noexcept nogil:
    if end.passed_on:
        return True
    end.passed_on = True
    return shutdown(end.other.fd, SHUT_WR) == 0


cdef bint begin_bulk(end_t *end) noexcept nogil:
    cdef int[2] pipe
    if pipe2(pipe, O_NONBLOCK | O_CLOEXEC) != 0:
        return False
    end.bulk = True
    end.pipe_out = pipe[0]
    end.pipe_in = pipe[1]
    return fcntl(pipe[1], F_SETPIPE_SZ, <int>PIPE_BYTES) >= 0


cdef bint move_bulk(end_t *end) noexcept nogil:
    cdef ssize_t moved
    cdef bint dry
    cdef int _
    for _ in range(TURNS):
        dry = end.ended or end.held >= SPLICED
        if not dry:
            moved = splice(end.fd, NULL, end.pipe_in, NULL, SPLICED - end.held,
                           SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
            if moved < 0 and errno != EAGAIN:
                return False
            dry = moved <= 0
            end.ended = moved == 0
            end.held += <uint32_t>moved if moved > 0 else 0
        while end.held > 0:
            moved = splice(end.pipe_out, NULL, end.other.fd, NULL, end.held,
                           SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
            if moved <= 0:
                return moved < 0 and errno == EAGAIN
            end.held -= <uint32_t>moved
        if end.ended:
            return pass_on_end(end)
        if dry:
            return True
    return True


cdef bint watch(floor_t *self, end_t *end) noexcept nogil:
    cdef epoll_event event
    event.events = EPOLLIN if not end.ended and end.held == 0 else 0
    if end.other.held > 0:
        event.events |= EPOLLOUT
    if event.events == end.watched:
        return True
    event.data.u64 = <uint64_t>end
    if epoll_ctl(self.epoll, EPOLL_CTL_MOD, end.fd, &event) != 0:
        return False
    end.watched = event.events
    return True


cdef void on_event(floor_t *self, end_t *end, uint32_t events) noexcept nogil:
    cdef pair_t *pair = end.pair
    cdef bint goes_on = True
    if pair.over:
        return
    if events & (EPOLLIN | EPOLLERR | EPOLLHUP):
        goes_on = move(self, end)
    if goes_on and events & EPOLLOUT:
        goes_on = move(self, end.other)
    if goes_on and not (pair.ends[0].passed_on and pair.ends[1].passed_on):
        goes_on = not events & EPOLLERR and watch(self, &pair.ends[0]) and watch(self, &pair.ends[1])
        if goes_on:
            return
    finish(self, pair)


cdef void finish(floor_t *self, pair_t *pair) noexcept nogil:
    cdef int i
    for i in range(2):
        if pair.ends[i].fd >= 0:
            close(pair.ends[i].fd)
        if pair.ends[i].bulk:
            close(pair.ends[i].pipe_in)
            close(pair.ends[i].pipe_out)
    pair.over = True
    pair.next = self.over
    self.over = pair


cdef bint begin(floor_t *self, end_t *end) noexcept nogil:
    cdef int one = 1
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u64 = <uint64_t>end
    end.watched = EPOLLIN
    return (
        setsockopt(end.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0
        and epoll_ctl(self.epoll, EPOLL_CTL_ADD, end.fd, &event) == 0
    )


cdef void take(floor_t *self, int fd) noexcept nogil:
    """A local dial has ended when connect returns, so it may wait for that."""
    cdef pair_t *pair = <pair_t *>calloc(1, sizeof(pair_t))
    cdef sockaddr_in *upstream = &self.upstreams[self.turn % 2]
    cdef int i
    self.turn += 1
    if pair == NULL:
        close(fd)
        return
    for i in range(2):
        pair.ends[i].pair = pair
        pair.ends[i].other = &pair.ends[1 - i]
    pair.ends[0].fd = fd
    pair.ends[1].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)
    if (
        pair.ends[1].fd < 0
        or connect(pair.ends[1].fd, <sockaddr *>upstream, sizeof(sockaddr_in)) != 0
        or fcntl(pair.ends[1].fd, F_SETFL, O_NONBLOCK) != 0
        or not begin(self, &pair.ends[0])
        or not begin(self, &pair.ends[1])
    ):
        finish(self, pair)


cdef void forward_for_ever(floor_t *self) noexcept nogil:
    cdef epoll_event[EVENTS] events
    cdef pair_t *pair
    cdef int count, i, fd
    while True:
        count = epoll_wait(self.epoll, events, EVENTS, -1)
        for i in range(count):
            if events[i].data.u64 != 0:
                on_event(self, <end_t *>events[i].data.u64, events[i].events)
                continue
            fd = accept4(self.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if fd >= 0:
                take(self, fd)
        while self.over != NULL:
            pair = self.over
            self.over = pair.next
            free(pair)


def forward(int listener, uint16_t first, uint16_t second):
    """Forwards whoever connects to a listening, non-blocking socket to these two ports of the loopback in
    turns, until the process is ended."""
    cdef floor_t self
    cdef epoll_event event
    cdef int i
    memset(&self, 0, sizeof(self))
    for i in range(2):
        self.upstreams[i].sin_family = AF_INET
        self.upstreams[i].sin_port = htons(second if i else first)
        self.upstreams[i].sin_addr.s_addr = LOOPBACK
    event.events = EPOLLIN
    event.data.u64 = 0
    self.listener = listener
    self.epoll = epoll_create1(EPOLL_CLOEXEC)
    if self.epoll < 0 or epoll_ctl(self.epoll, EPOLL_CTL_ADD, listener, &event) != 0:
        raise OSError(errno, "epoll of the floor")
    with nogil:
        forward_for_ever(&self)
