"""Many connections in one epoll set, driven by one thread that does not need the interpreter.

What a connection does is one *exchange* after the other: it sends a request and takes the answer, which is
known beforehand, byte for byte or (bulk) by its length. What it does after an exchange is its *plan*:

    REST      wait for the next call: the connection was opened, or the time is over
    REPEAT    the same again at once, until the time is over (a closed loop)
    SCHEDULE  the same again when it is due, whatever the earlier ones took (an open loop)
    RENEW     end in order, on both sides, and connect again, until the time is over
    REFUSAL   as RENEW, but what is wanted is that the connection is ended before it is answered

The first thing that goes wrong on any connection ends the run: LoadFailed says where.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free
from libc.string cimport strerror

from bench.native.histogram cimport Histogram, counts_add, counts_t
from bench.native.wire cimport (
    WIRE_ENDED,
    WIRE_FAILED,
    client_config,
    client_config_free,
    client_t,
    scratch_fini,
    scratch_init,
    scratch_t,
    wire_close,
    wire_finish,
    wire_flush,
    wire_open,
    wire_receive,
    wire_send,
    wire_t,
)
from lbcore.sys.linux cimport (
    CLOCK_MONOTONIC,
    ECONNRESET,
    EPIPE,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_MOD,
    EPOLLIN,
    EPOLLOUT,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    errno,
    memcmp,
    memset,
    monotonic_ns,
    read,
    timespec,
)

cdef extern from "sys/timerfd.h" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *value, itimerspec *old)
    int TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME

cdef extern from "arpa/inet.h" nogil:
    uint32_t htonl(uint32_t value)

cdef enum:
    EVENTS = 256
    FIRST_SOURCE = 0x7f000001    # 127.0.0.1, and then one for each client
    AT_ONCE = 8                  # connections that shake hands at a time, when many are opened
    WORDS = 256
    BULK = 1 << 16

cdef uint64_t SECOND = 1000000000
cdef uint64_t SLICE_NS = 100000000        # after which Python may look for signals
cdef uint64_t STALL_NS = 20 * SECOND      # without one byte: they were lost, or the proxy hangs
cdef uint64_t TIMER = <uint64_t>-1        # the timer's tag in the epoll set

cdef uint8_t[BULK] ZEROS                  # what an upload is made of


cdef enum plan_t:
    REST
    REPEAT
    SCHEDULE
    RENEW
    REFUSAL


cdef enum state_t:
    CLOSED
    OPENING                      # TLS shakes hands
    BUSY                         # in an exchange
    RESTING
    ENDING                       # our end is sent, theirs is awaited


cdef enum outcome_t:
    MORE                         # the slice is over
    DONE
    FAILED


cdef struct exchange_t:
    const uint8_t *request
    size_t request_length
    uint64_t upload              # bytes that follow the request
    uint64_t download            # bytes of the answer that are counted only
    const uint8_t *answer        # or what is compared; one of the two
    size_t answer_length


cdef struct connection_t:
    wire_t wire
    state_t state
    uint32_t watched             # EPOLLIN, EPOLLOUT
    uint64_t sent
    uint64_t received
    uint64_t number              # of its next exchange, in a schedule


cdef struct load_t:
    scratch_t scratch
    exchange_t exchange
    client_t *clients
    uint32_t client_count
    connection_t *connections    # connection i is client i % client_count; they do not move: TLS knows where
    uint32_t connection_count
    uint32_t most
    int epoll
    int timer
    plan_t plan
    uint32_t unopened            # connections that wait until others are open
    uint32_t active              # that are not done in this run
    uint64_t until_ns            # when the time is over
    uint64_t moved_ns            # when something happened last
    uint64_t done                # exchanges (or refusals) of this run
    uint64_t admitted            # that should have been refused
    uint64_t began_ns            # schedule: when number 0 is due
    double every_ns              # schedule: the time between two
    uint64_t scheduled           # schedule: how many there are
    uint64_t due                 # schedule: the next one whose time has not come
    counts_t *latencies          # schedule
    bint failed
    char[WORDS] words


# ---- failures ------------------------------------------------------------------------------------

cdef uint32_t index_of(load_t *load, connection_t *connection) noexcept nogil:
    return <uint32_t>(connection - load.connections)


cdef uint32_t client_of(load_t *load, connection_t *connection) noexcept nogil:
    return index_of(load, connection) % load.client_count


cdef void fail(load_t *load, connection_t *connection, const char *what) noexcept nogil:
    """The first failure is the one that is told."""
    if load.failed:
        return
    load.failed = True
    snprintf(load.words, WORDS,
             b"connection %u of client %u: %s, after %llu bytes of its request and %llu of the answer",
             index_of(load, connection), client_of(load, connection), what,
             <unsigned long long>connection.sent, <unsigned long long>connection.received)


cdef void fail_wire(load_t *load, connection_t *connection) noexcept nogil:
    cdef char[WORDS] what
    cdef const char *why = connection.wire.failure.name
    if why == NULL and connection.wire.failure.error != 0:
        why = strerror(connection.wire.failure.error)
    if why == NULL:
        snprintf(what, WORDS, b"%s", connection.wire.failure.doing)
    else:
        snprintf(what, WORDS, b"%s: %s", connection.wire.failure.doing, why)
    fail(load, connection, what)


# ---- an exchange ---------------------------------------------------------------------------------

cdef void begin(load_t *load, connection_t *connection) noexcept nogil:
    connection.state = BUSY
    connection.sent = 0
    connection.received = 0
    go_on(load, connection)


cdef void go_on(load_t *load, connection_t *connection) noexcept nogil:
    """Sends what is left of the request, as far as the kernel takes it."""
    cdef exchange_t *exchange = &load.exchange
    cdef uint64_t total = exchange.request_length + exchange.upload
    cdef uint64_t left
    cdef ssize_t taken = 0
    while connection.sent < total:
        if connection.sent < exchange.request_length:
            taken = wire_send(&connection.wire, &load.scratch, exchange.request + connection.sent,
                              exchange.request_length - connection.sent)
        else:
            left = total - connection.sent
            taken = wire_send(&connection.wire, &load.scratch, ZEROS, BULK if left > BULK else left)
        if taken <= 0:
            break
        connection.sent += <uint64_t>taken
    if taken < 0:
        broken(load, connection)


cdef void answered(load_t *load, connection_t *connection, const uint8_t *data, size_t length) noexcept nogil:
    """Takes a part of the answer; what is not the answer is a failure."""
    cdef exchange_t *exchange = &load.exchange
    cdef uint64_t total = exchange.download + exchange.answer_length
    cdef uint64_t at = connection.received
    if connection.state != BUSY:
        fail(load, connection, b"bytes that nobody asked for")
        return
    connection.received += length
    if connection.received > total:
        fail(load, connection, b"more bytes than were asked for")
        return
    if at >= exchange.download and memcmp(data, exchange.answer + (at - exchange.download), length) != 0:
        fail(load, connection, b"other bytes than were asked for")
        return
    if connection.received == total:
        exchanged(load, connection)


cdef void exchanged(load_t *load, connection_t *connection) noexcept nogil:
    """An exchange is over: what the plan says comes next."""
    if connection.sent < load.exchange.request_length + load.exchange.upload:
        fail(load, connection, b"an answer before the request was complete")
        return
    if load.plan == REFUSAL:
        load.admitted += 1
        finish(load, connection)
        return
    load.done += 1
    if load.plan == RENEW:
        finish(load, connection)
    elif load.plan == REPEAT and monotonic_ns() < load.until_ns:
        begin(load, connection)
    elif load.plan == SCHEDULE:
        exchanged_in_schedule(load, connection)
    else:
        rest(load, connection)


cdef void rest(load_t *load, connection_t *connection) noexcept nogil:
    connection.state = RESTING
    load.active -= 1
    open_next(load)


# ---- a schedule ----------------------------------------------------------------------------------
#
# Number n is due at began + n * every, on connection n % count. One that is not free then is late with it,
# and with all that have become due meanwhile: each is timed from when it was due, not from when it was sent.

cdef uint64_t due_ns(load_t *load, uint64_t number) noexcept nogil:
    return load.began_ns + <uint64_t>(<double>number * load.every_ns)


cdef void exchanged_in_schedule(load_t *load, connection_t *connection) noexcept nogil:
    counts_add(load.latencies, monotonic_ns() - due_ns(load, connection.number))
    connection.number += load.connection_count
    if connection.number >= load.scheduled:
        rest(load, connection)
    elif connection.number < load.due:
        begin(load, connection)
    else:
        connection.state = RESTING


cdef void send_what_is_due(load_t *load) noexcept nogil:
    cdef connection_t *connection
    cdef uint64_t now = monotonic_ns()
    while load.due < load.scheduled and due_ns(load, load.due) <= now and not load.failed:
        connection = &load.connections[load.due % load.connection_count]
        load.due += 1
        if connection.state == RESTING:
            begin(load, connection)
            watch(load, connection)
    if load.due < load.scheduled:
        wake_at(load.timer, due_ns(load, load.due))


cdef void wake_at(int timer, uint64_t when_ns) noexcept nogil:
    cdef itimerspec value
    value.it_interval.tv_sec = 0
    value.it_interval.tv_nsec = 0
    value.it_value.tv_sec = <long>(when_ns // SECOND)
    value.it_value.tv_nsec = <long>(when_ns % SECOND)
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &value, NULL)


# ---- opening and ending --------------------------------------------------------------------------

cdef void open_next(load_t *load) noexcept nogil:
    """One more of those that wait to be opened."""
    if load.unopened > 0 and not load.failed:
        load.unopened -= 1
        open_connection(load, &load.connections[load.connection_count - load.unopened - 1])


cdef void open_connection(load_t *load, connection_t *connection) noexcept nogil:
    connection.state = OPENING
    connection.watched = 0
    connection.sent = 0
    connection.received = 0
    if wire_open(&connection.wire, &load.scratch, &load.clients[client_of(load, connection)]) != 0:
        broken(load, connection)
        return
    if connection.wire.established:
        begin(load, connection)
    watch(load, connection)


cdef void finish(load_t *load, connection_t *connection) noexcept nogil:
    connection.state = ENDING
    if wire_finish(&connection.wire, &load.scratch) != 0:
        fail_wire(load, connection)


cdef void ended(load_t *load, connection_t *connection) noexcept nogil:
    """The other side's end, in order."""
    if connection.state == ENDING:
        closed(load, connection)
    elif load.plan == REFUSAL and connection.received == 0:
        load.done += 1
        closed(load, connection)
    else:
        fail(load, connection, b"the connection was ended")


cdef void broken(load_t *load, connection_t *connection) noexcept nogil:
    """A failure on the wire. To be cut off is one way to be refused, but not by a port that is closed."""
    cdef int error = connection.wire.failure.error
    cdef bint cut_off = connection.wire.failure.name == NULL and error in (0, ECONNRESET, EPIPE)
    if cut_off and load.plan == REFUSAL and connection.received == 0 and connection.state != ENDING:
        load.done += 1
        closed(load, connection)
    else:
        fail_wire(load, connection)


cdef void closed(load_t *load, connection_t *connection) noexcept nogil:
    """Connects again, where that is the plan and there is time left."""
    wire_close(&connection.wire, &load.scratch)
    connection.state = CLOSED
    if (load.plan == RENEW or load.plan == REFUSAL) and monotonic_ns() < load.until_ns:
        open_connection(load, connection)
    else:
        load.active -= 1


# ---- the loop ------------------------------------------------------------------------------------

cdef void watch(load_t *load, connection_t *connection) noexcept nogil:
    """Has epoll watch for what the connection waits for; a system call only when that has changed."""
    cdef epoll_event event
    cdef int operation
    cdef bint unsent = (
        connection.state == BUSY
        and connection.sent < load.exchange.request_length + load.exchange.upload
    )
    if connection.state == CLOSED or load.failed:
        return
    event.events = EPOLLIN
    if connection.wire.owed != NULL or unsent:
        event.events |= EPOLLOUT
    if event.events == connection.watched:
        return
    event.data.u64 = index_of(load, connection)
    operation = EPOLL_CTL_MOD if connection.watched else EPOLL_CTL_ADD
    if epoll_ctl(load.epoll, operation, connection.wire.fd, &event) != 0:
        fail(load, connection, strerror(errno))
    connection.watched = event.events


cdef void ready(load_t *load, connection_t *connection, uint32_t events) noexcept nogil:
    """What one event of a connection leads to."""
    if events & EPOLLOUT:
        if wire_flush(&connection.wire) != 0:
            broken(load, connection)
        elif connection.state == BUSY:
            go_on(load, connection)
    if events & ~EPOLLOUT and connection.state != CLOSED and not load.failed:
        take(load, connection)
    watch(load, connection)


cdef void take(load_t *load, connection_t *connection) noexcept nogil:
    cdef const uint8_t *data
    cdef bint counted = connection.received < load.exchange.download
    cdef ssize_t got = wire_receive(&connection.wire, &load.scratch, counted, &data)
    if connection.state == OPENING and connection.wire.established:
        begin(load, connection)
    if got > 0:
        answered(load, connection, data, <size_t>got)
    elif got == WIRE_FAILED:
        broken(load, connection)
    elif got == WIRE_ENDED or (connection.wire.noticed and connection.state != ENDING):
        ended(load, connection)      # some say close_notify, and FIN only after ours


cdef outcome_t run_slice(load_t *load) noexcept nogil:
    """Goes on for a slice of time, or until all connections are done."""
    cdef epoll_event[EVENTS] events
    cdef uint64_t until = monotonic_ns() + SLICE_NS
    cdef uint64_t now
    cdef int count
    while load.active > 0 and not load.failed:
        count = epoll_wait(load.epoll, events, EVENTS, <int>(SLICE_NS // 1000000))
        handle(load, events, count)
        now = monotonic_ns()
        if count > 0:
            load.moved_ns = now
        elif now - load.moved_ns > STALL_NS:
            load.failed = True
            snprintf(load.words, WORDS, b"nothing has moved for %llu s: bytes were lost, or the proxy hangs",
                     <unsigned long long>(STALL_NS // SECOND))
        if now >= until:
            break
    if load.failed:
        return FAILED
    return DONE if load.active == 0 else MORE


cdef void handle(load_t *load, epoll_event *events, int count) noexcept nogil:
    cdef uint64_t ticks
    cdef int i
    for i in range(count):
        if load.failed:
            return
        if events[i].data.u64 == TIMER:
            read(load.timer, &ticks, sizeof(ticks))
            send_what_is_due(load)
        else:
            ready(load, &load.connections[events[i].data.u64], events[i].events)


# ---- what Python sees ----------------------------------------------------------------------------

class LoadFailed(Exception):
    """Something that makes the whole measurement worthless: a connection that failed, a wrong byte."""


cdef class Load:
    """Connections to one port of 127.0.0.1 that all do the same exchange.

    Not for two threads at once; each thread may have a load of its own, whose calls run side by side.

    Args:
        port: where to connect.
        clients: as whom, in turns: (certificate, key, CA) as PEM bytes, or None for plain TCP.
        request: what is sent first.
        upload: bytes that are sent after it.
        download: how many bytes must come then, which are counted only; or
        answer: the very bytes that must come.
        most: connections that are open at a time.

    Raises (all methods): LoadFailed.
    """

    cdef load_t load
    cdef bytes request, answer

    def __cinit__(self):
        self.load.epoll = -1
        self.load.timer = -1

    def __init__(self, uint16_t port, clients, bytes request, *, uint64_t upload=0, uint64_t download=0,
                 bytes answer=b"", uint32_t most=64):
        cdef uint32_t i
        if not clients:
            raise ValueError("no clients")
        if download and answer:
            raise ValueError("an answer is counted or compared, not both")
        self.request = request
        self.answer = answer
        self.load.exchange = exchange_t(request, len(request), upload, download, answer, len(answer))
        self.load.epoll = epoll_create1(EPOLL_CLOEXEC)
        self.load.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
        self.load.clients = <client_t *>calloc(len(clients), sizeof(client_t))
        self.load.connections = <connection_t *>calloc(most, sizeof(connection_t))
        self.load.most = most
        if self.load.epoll < 0 or self.load.timer < 0:
            raise OSError(errno, "epoll or timer of the load")
        if not scratch_init(&self.load.scratch) or self.load.clients == NULL or self.load.connections == NULL:
            raise MemoryError
        self.load.client_count = len(clients)
        for i in range(self.load.client_count):
            self.load.clients[i].source = htonl(FIRST_SOURCE + i)
            self.load.clients[i].port = port
            if clients[i] is not None:
                certificate, key, ca = clients[i]
                self.load.clients[i].config = config_for(certificate, key, ca)
        self._watch_timer()

    def __dealloc__(self):
        self.close()

    def close(self):
        """Drops all connections and gives everything back, whatever state it is in."""
        cdef uint32_t i
        for i in range(self.load.connection_count):
            wire_close(&self.load.connections[i].wire, &self.load.scratch)
        free(self.load.connections)
        for i in range(self.load.client_count):
            client_config_free(self.load.clients[i].config)
        free(self.load.clients)
        scratch_fini(&self.load.scratch)
        if self.load.epoll >= 0:
            close(self.load.epoll)
        if self.load.timer >= 0:
            close(self.load.timer)
        memset(&self.load, 0, sizeof(load_t))
        self.load.epoll = self.load.timer = -1

    def open(self, uint32_t count):
        """Opens so many connections more, each proven by one exchange."""
        self._more_connections(count)
        self._begin(REST, 0)
        self.load.active = count
        self.load.unopened = count
        for _ in range(min(<uint32_t>AT_ONCE, count)):
            open_next(&self.load)
        self._run()

    def repeat(self, double seconds):
        """Exchanges one after the other on all open connections; how many there were."""
        cdef uint32_t i
        self._begin(REPEAT, seconds)
        self.load.active = self.load.connection_count
        for i in range(self.load.connection_count):
            begin(&self.load, &self.load.connections[i])
            watch(&self.load, &self.load.connections[i])
        self._run()
        return self.load.done

    def schedule(self, double rate, double seconds):
        """So many exchanges a second over all open connections, whatever each takes; a Histogram of their
        times, each from when it was due."""
        cdef Histogram histogram = Histogram()
        cdef uint32_t i
        self._begin(SCHEDULE, seconds)
        self.load.latencies = &histogram.counts
        self.load.scheduled = <uint64_t>(rate * seconds)
        self.load.every_ns = 1e9 / rate
        self.load.began_ns = monotonic_ns()
        self.load.due = 0
        for i in range(self.load.connection_count):
            self.load.connections[i].number = i
        self.load.active = min(<uint64_t>self.load.connection_count, self.load.scheduled)
        send_what_is_due(&self.load)
        self._run()
        return histogram

    def renew(self, uint32_t count, double seconds):
        """Connections, `count` at a time, that are opened, do one exchange and end; how many there were."""
        return self._churn(RENEW, count, seconds)

    def refused(self, uint32_t count, double seconds):
        """Connections, `count` at a time, that must be ended before they are answered: how many were, and
        how many were let in."""
        return self._churn(REFUSAL, count, seconds), self.load.admitted

    def end(self):
        """Ends all open connections, in order and on both sides."""
        cdef uint32_t i
        self._begin(REST, 0)
        for i in range(self.load.connection_count):
            if self.load.connections[i].state != CLOSED:
                self.load.active += 1
                finish(&self.load, &self.load.connections[i])
        self._run()

    def _churn(self, plan_t plan, uint32_t count, double seconds):
        cdef uint32_t i
        if self.load.connection_count < count:
            self._more_connections(count - self.load.connection_count)
        self._begin(plan, seconds)
        self.load.active = count
        for i in range(count):
            open_connection(&self.load, &self.load.connections[i])
        self._run()
        return self.load.done

    def _watch_timer(self):
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = TIMER
        epoll_ctl(self.load.epoll, EPOLL_CTL_ADD, self.load.timer, &event)

    def _more_connections(self, uint32_t count):
        if self.load.epoll < 0:
            raise ValueError("the load is closed")
        if count > self.load.most - self.load.connection_count:
            raise ValueError(f"at most {self.load.most} connections")
        for _ in range(count):
            self.load.connections[self.load.connection_count].wire.fd = -1
            self.load.connection_count += 1

    def _begin(self, plan_t plan, double seconds):
        self.load.plan = plan
        self.load.active = 0
        self.load.done = 0
        self.load.admitted = 0
        self.load.moved_ns = monotonic_ns()
        self.load.until_ns = self.load.moved_ns + <uint64_t>(seconds * SECOND)

    def _run(self):
        cdef outcome_t outcome = MORE
        while outcome == MORE:
            with nogil:
                outcome = run_slice(&self.load)
        if outcome == FAILED:
            raise LoadFailed(self.load.words.decode(errors="replace"))


cdef void *config_for(bytes certificate, bytes key, bytes ca) except NULL:
    cdef char[WORDS] problem
    cdef void *config = client_config(certificate, key, ca, problem, WORDS)
    if config == NULL:
        raise LoadFailed(f"TLS of the load: {problem.decode(errors='replace')}")
    return config
