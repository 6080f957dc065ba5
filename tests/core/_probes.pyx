"""Doors for the tests into lbcore's parts: the same compiled functions that the workers call.

Each class owns the C struct that a worker would own and lets Python call the part with a clock of its
own choosing. Loops that several threads run at once are here and run without the interpreter's lock, so
they really meet. Nothing below decides anything: what is expected is in the tests.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc

from lbcore.codes import REASONS

from lbcore.from_core cimport read_record, show_address
from lbcore.codes cimport (
    ENDING_CLEAN,
    ENDING_CLOSE,
    ENDING_RESET,
    STAGE_DIAL,
    STAGE_FORWARD,
    reason_ending,
    reason_t,
)
from lbcore.record_lines cimport LINES_BYTES, LineBuffer
from lbcore.to_core cimport make_name
from lbcore.parts.balance cimport (
    balance_give,
    balance_hash,
    balance_pick,
    balance_pick_for,
    balance_turn,
    choice_t,
)
from lbcore.parts.cells cimport (
    app_new,
    app_unref,
    limiter_new,
    limiter_ref,
    limiter_unref,
    lines_new,
    listener_new,
    name_new,
    name_unref,
    policy_unref,
    pool_new,
    pool_replace,
    snapshot_new,
    snapshot_unref,
    upstream_new,
    verdict_new,
)
from lbcore.parts.chunks cimport chunk_append, chunk_give, chunk_pool_fini, chunk_room_beside
from lbcore.parts.der cimport der_fit_for_client, der_serial, der_validity, validity_covers
from lbcore.parts.early cimport early_drop
from lbcore.parts.health cimport (
    UPSTREAM_DOWN,
    UPSTREAM_DRAINING,
    health_dialled,
    health_failed,
    health_gave_up,
    health_had_bytes,
    health_passed,
    health_set,
    health_was_reset,
)
from lbcore.parts.legs cimport leg_decrypt, leg_drop, leg_flush, leg_io, leg_put_payload
from lbcore.parts.bandwidth cimport bandwidth_reserve, bandwidth_return
from lbcore.parts.limiter cimport (
    LIMIT_NONE,
    LIMIT_OPEN,
    LIMIT_RATE,
    LIMIT_WINDOW,
    limiter_close,
    limiter_open,
    limiter_refund,
    refusal_t,
)
from lbcore.parts.networks cimport networks_hold, networks_new, networks_set
from lbcore.parts.parking cimport parking_enter, parking_leave
from lbcore.parts.pipes cimport pipe_give, pipe_take, pipes_fini
from lbcore.parts.policy cimport policy_add, policy_allow, policy_judge, policy_new
from lbcore.parts.poller cimport (
    EVENT_CLIENT,
    poller_remove,
    poller_want,
    tag_generation,
    tag_index,
    tag_kind,
)
from lbcore.parts.proxy_in cimport PROXY_BAD, PROXY_MORE, proxy_header_t, proxy_read
from lbcore.parts.rings cimport (
    ring_awake,
    ring_fini,
    ring_init,
    ring_may_sleep,
    ring_pop,
    ring_push,
    ring_wake,
)
from lbcore.parts.opening cimport window_new
from lbcore.parts.scopes cimport scopes_add
from lbcore.parts.slab cimport slab_find, slab_fini, slab_give, slab_init, slab_slot, slab_take
from lbcore.parts.sockets cimport (
    socket_error,
    socket_is_connected,
    socket_is_paced,
    socket_keep_alive,
    socket_tune,
    socket_unacknowledged,
    socket_will_reset,
)
from lbcore.parts.strangers cimport stranger_enter, stranger_leave
from lbcore.parts.timers cimport timer_arm, timer_disarm, timer_expired, timer_wait_ms, wheel_init
from lbcore.parts.verdicts cimport verdict_hash, verdicts_clear, verdicts_find, verdicts_insert
from lbcore.path.move cimport move_bytes, move_out_of_pipe, move_room
from lbcore.structs cimport (
    LEG_HUNG_UP,
    LEG_PIECEMEAL,
    SCRATCH_BYTES,
    TIMER_NONE,
    app_t,
    ask_t,
    chunk_pool_t,
    chunk_t,
    conn_t,
    leg_t,
    limiter_t,
    message_t,
    name_t,
    networks_t,
    node_t,
    pool_t,
    pipe_t,
    scopes_t,
    stamp_t,
    taken_t,
    bandwidth_t,
    MODE_DELAY,
    policy_t,
    record_t,
    ring_t,
    scope_t,
    slab_t,
    upstream_t,
    validity_t,
    verdict_t,
    wheel_t,
    worker_t,
)
from lbcore.sys.atomics cimport (
    counter_next,
    counter_read,
    counter_t,
    gauge_read,
    gauge_t,
    word_read,
    word_write,
)
from lbcore.sys cimport linux
from lbcore.sys.linux cimport memcpy, memset, monotonic_ns, sockaddr_in, sockaddr_in6
from lbcore.tls.engine cimport TLS_WANT_READ, io_take, tls_engine_t, tls_io_t
from lbcore.worker cimport dispatch, watch_listeners, worker_new


cdef extern from "sched.h" nogil:
    int sched_yield()

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *at, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *at, size_t length)
    int mprotect(void *at, size_t length, int protection)
    int PROT_NONE, PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void *MAP_FAILED


cdef void *zeroed_lines(size_t size) except NULL:
    """Zeroed memory on a cache line, as structs with gauges need it."""
    cdef void *memory = lines_new(size)
    if memory == NULL:
        raise MemoryError
    return memory


# ---- racing --------------------------------------------------------------------------------------

cdef class Gate:
    """Threads that come here without the interpreter's lock go on together: Python starts them one by one,
    and a loop of microseconds would be over before the next one begins."""

    cdef counter_t arrived
    cdef uint64_t threads

    def __cinit__(self, uint64_t threads):
        self.threads = threads


cdef void go_together(counter_t *arrived, uint64_t threads) noexcept nogil:
    counter_next(arrived)
    while counter_read(arrived) < threads:
        sched_yield()


# ---- codes ---------------------------------------------------------------------------------------

def ending_of(str reason not None):
    """How the client's side ends for this reason: "close", "clean" or "reset"."""
    return {ENDING_CLOSE: "close", ENDING_CLEAN: "clean", ENDING_RESET: "reset"}[
        reason_ending(<reason_t><int>REASONS.index(reason))]


# ---- slab ----------------------------------------------------------------------------------------

cdef class Slab:
    cdef slab_t slab

    def __cinit__(self, uint32_t slots_max):
        if not slab_init(&self.slab, slots_max):
            raise MemoryError

    def __dealloc__(self):
        slab_fini(&self.slab)

    @property
    def in_use(self):
        return self.slab.in_use

    def take(self):
        """(index, generation) of a fresh connection, or None: full."""
        cdef conn_t *conn = slab_take(&self.slab)
        return None if conn == NULL else (conn.index, conn.generation)

    def give(self, uint32_t index):
        slab_give(&self.slab, slab_slot(&self.slab, index))

    def find(self, uint32_t index, uint32_t generation):
        """Whether an event for that index and generation finds a connection, and the right one."""
        cdef conn_t *conn = slab_find(&self.slab, index, generation)
        if conn == NULL:
            return False
        if conn.index != index:
            raise AssertionError(f"slot {index} holds connection {conn.index}")
        return True

    def scribble(self, uint32_t index):
        """Fills fields of a connection in use, as its life would."""
        cdef conn_t *conn = slab_slot(&self.slab, index)
        conn.client.fd = 7
        conn.upstream.fd = 8
        conn.client.bytes = 9
        conn.limited = True
        conn.attempts = 3

    def is_fresh(self, uint32_t index):
        """Whether nothing of an earlier life is left in it."""
        cdef conn_t *conn = slab_slot(&self.slab, index)
        return (conn.client.fd == -1 and conn.upstream.fd == -1 and conn.client.bytes == 0
                and not conn.limited and conn.attempts == 0 and conn.timer_slot == <uint32_t>TIMER_NONE)


# ---- timers --------------------------------------------------------------------------------------

cdef class Wheel:
    """A timer wheel and the connections that it may hold, numbered from 0."""

    cdef wheel_t wheel
    cdef conn_t *conns

    def __cinit__(self, uint32_t timers, uint64_t now_ns):
        cdef uint32_t i
        self.conns = <conn_t *>calloc(timers, sizeof(conn_t))
        if self.conns == NULL:
            raise MemoryError
        for i in range(timers):
            self.conns[i].index = i
            self.conns[i].timer_slot = TIMER_NONE
        wheel_init(&self.wheel, now_ns)

    def __dealloc__(self):
        free(self.conns)

    @property
    def armed(self):
        return self.wheel.armed

    def arm(self, uint32_t timer, uint64_t deadline_ns):
        timer_arm(&self.wheel, &self.conns[timer], deadline_ns)

    def disarm(self, uint32_t timer):
        timer_disarm(&self.wheel, &self.conns[timer])

    def expired(self, uint64_t now_ns):
        """All timers that fire at this time, in the order they come."""
        cdef conn_t *conn
        fired = []
        while True:
            conn = timer_expired(&self.wheel, now_ns)
            if conn == NULL:
                return fired
            fired.append(conn.index)

    def wait_ms(self, uint64_t now_ns):
        return timer_wait_ms(&self.wheel, now_ns)


# ---- rings ---------------------------------------------------------------------------------------

cdef class Ring:
    """A ring of 64-bit numbers."""

    cdef ring_t *ring
    cdef counter_t taken

    def __cinit__(self, uint32_t capacity):
        self.ring = <ring_t *>zeroed_lines(sizeof(ring_t))
        if not ring_init(self.ring, capacity, sizeof(uint64_t)):
            raise MemoryError

    def __dealloc__(self):
        if self.ring != NULL:
            ring_fini(self.ring)
            free(self.ring)

    @property
    def wake_fd(self):
        return self.ring.wake_fd

    @property
    def dropped(self):
        return counter_read(&self.ring.dropped)

    def push(self, uint64_t item):
        return bool(ring_push(self.ring, &item))

    def pop(self):
        cdef uint64_t item = 0
        return item if ring_pop(self.ring, &item) else None

    def may_sleep(self):
        return bool(ring_may_sleep(self.ring))

    def awake(self):
        ring_awake(self.ring)

    def wake(self):
        ring_wake(self.ring)

    def write(self, uint64_t writer, uint32_t count):
        """Pushes writer << 32 | 0, 1, 2, ... and wakes the reader each time; waits while it is full."""
        cdef uint32_t i
        cdef uint64_t item
        with nogil:
            for i in range(count):
                item = writer << 32 | i
                while not ring_push(self.ring, &item):
                    ring_wake(self.ring)
                    sched_yield()
                ring_wake(self.ring)

    def read(self, uint32_t total):
        """Pops until all readers together have `total` items; this reader's, in order."""
        cdef uint64_t *items = <uint64_t *>malloc(total * sizeof(uint64_t))
        cdef uint32_t count = 0
        if items == NULL:
            raise MemoryError
        try:
            with nogil:
                while counter_read(&self.taken) < total:
                    if ring_pop(self.ring, &items[count]):
                        count += 1
                        counter_next(&self.taken)
                    else:
                        sched_yield()
            return [items[i] for i in range(count)]
        finally:
            free(items)


# ---- chunks --------------------------------------------------------------------------------------

cdef class Outbox:
    """Bytes that wait for a socket, held in a chunk of a pool."""

    cdef chunk_pool_t pool
    cdef chunk_t *chunk

    def __dealloc__(self):
        if self.chunk != NULL:
            chunk_give(&self.pool, self.chunk)
        chunk_pool_fini(&self.pool)

    @property
    def room(self):
        return 0 if self.chunk == NULL else self.chunk.room

    @property
    def room_beside(self):
        """That of the largest chunk which the other direction may have."""
        return chunk_room_beside(self.room)

    @property
    def kept(self):
        """Free chunks in the pool, by size class."""
        return list(self.pool.kept)

    def append(self, bytes data not None):
        return bool(chunk_append(&self.pool, &self.chunk, data, len(data)))

    def sent(self, uint32_t count):
        """The kernel took that many; an empty chunk goes back to the pool."""
        self.chunk.start += count
        self.chunk.length -= count
        if self.chunk.length == 0:
            chunk_give(&self.pool, self.chunk)
            self.chunk = NULL

    def content(self):
        if self.chunk == NULL:
            return b""
        return (<const char *>self.chunk.data + self.chunk.start)[:self.chunk.length]


# ---- limiter -------------------------------------------------------------------------------------

cdef class Limiter:
    cdef limiter_t *cell
    cdef scopes_t scopes
    cdef stamp_t stamps[12]
    cdef taken_t taken           # by the last open that was admitted
    cdef readonly Limiter parent

    def __cinit__(self, *, int64_t open_max=0, uint64_t interval_ns=0, uint64_t burst=1, window=None,
                  bint delays=False, Limiter parent=None):
        self.cell = limiter_new()
        if self.cell == NULL:
            raise MemoryError
        self.cell.open_max = open_max
        self.cell.interval_ns = interval_ns
        self.cell.burst_ns = interval_ns * burst
        if window is not None:
            self.cell.window = window_new(window[0], window[1])
            if self.cell.window == NULL:
                raise MemoryError
        if delays:
            self.cell.mode = MODE_DELAY
        self.taken.stamps = self.stamps
        self.parent = parent
        if parent is not None:
            self.cell.parent = limiter_ref(parent.cell)
        scopes_add(&self.scopes, self.cell)

    def __dealloc__(self):
        limiter_unref(self.cell)

    @property
    def opened(self):
        return gauge_read(&self.cell.open)

    @property
    def next_ns(self):
        return word_read(&self.cell.next_ns)

    @property
    def admitted(self):
        return counter_read(&self.cell.admitted)

    @property
    def refused(self):
        return counter_read(&self.cell.refused)

    def open(self, uint64_t now_ns, since_ns=None):
        """None: admitted; else (the scope that refused, "open", "rate" or "window", nanoseconds to wait)."""
        cdef refusal_t refusal
        cdef Limiter scope = self
        cdef stamp_t stamps[12]
        cdef taken_t taken
        taken.stamps = stamps
        if limiter_open(&self.scopes, now_ns if since_ns is None else since_ns, now_ns, &taken, &refusal):
            assert refusal.limit == LIMIT_NONE and refusal.limiter == NULL
            memcpy(self.stamps, stamps, sizeof(stamps))
            self.taken.rated = taken.rated
            self.taken.windowed = taken.windowed
            return None
        while scope.cell is not refusal.limiter:
            scope = scope.parent
        limit = {LIMIT_OPEN: "open", LIMIT_RATE: "rate", LIMIT_WINDOW: "window"}[refusal.limit]
        return scope, limit, refusal.wait_ns

    def close(self):
        limiter_close(&self.scopes)

    def refund(self):
        """Of the last open that was admitted."""
        limiter_refund(&self.scopes, &self.taken)

    def hammer(self, Gate gate not None, uint32_t attempts, uint64_t start_ns, uint64_t step_ns, bint hold):
        """Opens `attempts` times on a clock that moves on by `step_ns`; closes at once unless `hold`.
        (admitted, the highest count of open connections ever seen)."""
        cdef refusal_t refusal
        cdef stamp_t stamps[12]
        cdef taken_t taken
        cdef uint64_t now_ns
        cdef uint64_t admitted = 0
        cdef int64_t highest = 0
        cdef int64_t level
        cdef uint32_t i
        taken.stamps = stamps
        with nogil:
            go_together(&gate.arrived, gate.threads)
            for i in range(attempts):
                now_ns = start_ns + i * step_ns
                if limiter_open(&self.scopes, now_ns, now_ns, &taken, &refusal):
                    admitted += 1
                    level = gauge_read(&self.cell.open)
                    highest = level if level > highest else highest
                    if not hold:
                        limiter_close(&self.scopes)
        return admitted, highest

    def hammer_times(self, Gate gate not None, uint32_t attempts, uint64_t start_ns, uint64_t step_ns):
        """The times of those that were admitted, on a clock of this thread's own."""
        cdef refusal_t refusal
        cdef stamp_t stamps[12]
        cdef taken_t taken
        cdef uint64_t now_ns
        cdef uint32_t admitted = 0
        cdef uint32_t i
        cdef uint64_t *times = <uint64_t *>calloc(attempts, sizeof(uint64_t))
        if times == NULL:
            raise MemoryError
        taken.stamps = stamps
        with nogil:
            go_together(&gate.arrived, gate.threads)
            for i in range(attempts):
                now_ns = start_ns + i * step_ns
                if limiter_open(&self.scopes, now_ns, now_ns, &taken, &refusal):
                    times[admitted] = now_ns
                    admitted += 1
                    limiter_close(&self.scopes)
        try:
            return [times[i] for i in range(admitted)]
        finally:
            free(times)

    def take_back(self, Gate gate not None, uint32_t attempts, uint64_t now_ns):
        """Opens, refunds and closes, as when a later stage refuses."""
        cdef refusal_t refusal
        cdef stamp_t stamps[12]
        cdef taken_t taken
        cdef uint32_t _i
        taken.stamps = stamps
        with nogil:
            go_together(&gate.arrived, gate.threads)
            for _i in range(attempts):
                if limiter_open(&self.scopes, now_ns, now_ns, &taken, &refusal):
                    limiter_refund(&self.scopes, &taken)
                    limiter_close(&self.scopes)


cdef class Bandwidth:
    """One direction's account."""

    cdef bandwidth_t account

    def __cinit__(self, uint64_t rate):
        self.account.rate = rate
        self.account.burst = max(<uint64_t>1, rate // 8)

    @property
    def burst(self):
        return self.account.burst

    def reserve(self, uint64_t amount, uint64_t now_ns):
        return bandwidth_reserve(&self.account, amount, now_ns)

    def give_back(self, uint64_t amount):
        bandwidth_return(&self.account, amount)

    def reserve_many(self, Gate gate not None, uint32_t count, uint64_t amount, uint64_t now_ns):
        """The times it was given, one portion after the other."""
        cdef uint32_t i
        cdef uint64_t *times = <uint64_t *>calloc(count, sizeof(uint64_t))
        if times == NULL:
            raise MemoryError
        with nogil:
            go_together(&gate.arrived, gate.threads)
            for i in range(count):
                times[i] = bandwidth_reserve(&self.account, amount, now_ns)
        try:
            return [times[i] for i in range(count)]
        finally:
            free(times)


# ---- balance -------------------------------------------------------------------------------------

cdef class Pool:
    """An application's upstreams: pairs of weight and most connections (0: no cap)."""

    cdef app_t *app
    cdef pool_t *pool

    def __cinit__(self, upstreams, *, uint32_t failures_max=0, uint64_t quarantine_ns=0,
                  uint32_t quarantined_max=0, uint64_t slow_start_ns=0, uint64_t connect_timeout_ns=0):
        cdef upstream_t *upstream
        cdef uint32_t i
        self.app = app_new()
        self.pool = pool_new(<uint32_t>len(upstreams))
        if self.app == NULL or self.pool == NULL:
            raise MemoryError
        pool_replace(self.app, self.pool)
        self.app.failures_max = failures_max
        self.app.quarantine_ns = quarantine_ns
        self.app.slow_start_ns = slow_start_ns
        self.app.connect_timeout_ns = connect_timeout_ns
        self.pool.quarantined_max = quarantined_max
        for i in range(self.pool.count):
            upstream = upstream_new()
            if upstream == NULL:
                raise MemoryError
            upstream.id = upstream.mark = i
            upstream.hash = balance_hash(&i, sizeof(i))
            word_write(&upstream.weight, upstreams[i][0])
            upstream.in_flight_max = upstreams[i][1]
            self.pool.upstreams[i] = upstream

    def __dealloc__(self):
        app_unref(self.app)

    def turn(self):
        """Where a new connection starts to look."""
        return balance_turn(self.app)

    def pick(self, uint64_t now_ns=0, tried=(), turn=None):
        """Index of the upstream, or None; for a new connection unless it has had its turn."""
        found = self.pick_or_probe(now_ns, tried, turn)
        return None if found is None else found[0]

    def pick_or_probe(self, uint64_t now_ns=0, tried=(), turn=None, client=None):
        """(index, whether it is to find out if that one is back), or None."""
        cdef uint16_t ids[8]
        cdef choice_t choice
        cdef int i
        for i in range(len(tried)):
            ids[i] = tried[i]
        if client is not None:
            found = balance_pick_for(
                self.app, balance_hash(<const char *><bytes>client, len(client)), ids, <int>len(tried),
                now_ns, &choice)
        else:
            start = self.turn() if turn is None else turn
            found = balance_pick(self.app, start, ids, <int>len(tried), now_ns, &choice)
        return (choice.upstream.id, bool(choice.probing)) if found else None

    def give(self, uint32_t index):
        balance_give(self.pool.upstreams[index])

    def dialled(self, uint32_t index, uint64_t now_ns=0):
        health_dialled(self.app, self.pool.upstreams[index], now_ns)

    def failed(self, uint32_t index, uint64_t now_ns, bint probing=False):
        health_failed(self.app, self.pool.upstreams[index], probing, now_ns)

    def was_reset(self, uint32_t index, uint64_t now_ns):
        health_was_reset(self.app, self.pool.upstreams[index], now_ns)

    def had_bytes(self, uint32_t index):
        health_had_bytes(self.pool.upstreams[index])

    def gave_up(self, uint32_t index, uint64_t now_ns):
        health_gave_up(self.pool.upstreams[index], now_ns)

    def passed(self, uint32_t index, uint64_t now_ns):
        health_passed(self.app, self.pool.upstreams[index], now_ns)

    def flag(self, uint32_t index, str flag not None, bint on):
        """"draining" or "down"."""
        health_set(self.pool.upstreams[index], UPSTREAM_DRAINING if flag == "draining" else UPSTREAM_DOWN, on)

    def clock(self):
        return monotonic_ns()

    def fail_on(self, Gate gate not None, uint32_t index, uint32_t attempts):
        """Dials of that upstream that fail, and now and then one that succeeds; the most ever seen in
        quarantine at once: whoever is found in the same one by two looks was in it in between."""
        cdef uint32_t i
        cdef uint32_t j
        cdef uint32_t out
        cdef uint32_t most = 0
        cdef uint64_t until_ns[64]
        if self.pool.count > 64:
            raise ValueError("count: at most 64")
        with nogil:
            go_together(&gate.arrived, gate.threads)
            for i in range(attempts):
                if i % 16 == 15:
                    health_dialled(self.app, self.pool.upstreams[index], monotonic_ns())
                else:
                    health_failed(self.app, self.pool.upstreams[index], False, monotonic_ns())
                for j in range(self.pool.count):
                    until_ns[j] = word_read(&self.pool.upstreams[j].quarantined_until_ns)
                out = 0
                for j in range(self.pool.count):
                    if until_ns[j] != 0:
                        out += word_read(&self.pool.upstreams[j].quarantined_until_ns) == until_ns[j]
                most = out if out > most else most
        return most

    def quarantined(self, uint64_t now_ns):
        """Indexes of the upstreams that failures keep out of the pool."""
        return [i for i in range(self.pool.count)
                if word_read(&self.pool.upstreams[<uint32_t>i].quarantined_until_ns) > now_ns]

    def until_ns(self, uint32_t index):
        """When its quarantine is over; 0: it is in none."""
        return word_read(&self.pool.upstreams[index].quarantined_until_ns)

    @property
    def in_flight(self):
        return [gauge_read(&self.pool.upstreams[<uint32_t>i].in_flight) for i in range(self.pool.count)]

    @property
    def picked(self):
        return [counter_read(&self.pool.upstreams[<uint32_t>i].picked) for i in range(self.pool.count)]

    @property
    def errors(self):
        return [counter_read(&self.pool.upstreams[<uint32_t>i].errors) for i in range(self.pool.count)]

    def hammer(self, Gate gate not None, uint32_t attempts, bint hold):
        """Picks `attempts` times and gives back at once unless `hold`.
        (how often there was one, the highest count ever seen on one picked)."""
        cdef uint32_t _i
        cdef choice_t choice
        cdef int64_t level
        cdef int64_t highest = 0
        cdef uint32_t found = 0
        with nogil:
            go_together(&gate.arrived, gate.threads)
            for _i in range(attempts):
                if balance_pick(self.app, balance_turn(self.app), NULL, 0, 0, &choice):
                    found += 1
                    level = gauge_read(&choice.upstream.in_flight)
                    highest = level if level > highest else highest
                    if not hold:
                        balance_give(choice.upstream)
        return found, highest


# ---- der -----------------------------------------------------------------------------------------

cdef class Guarded:
    """Bytes that end where readable memory ends: reading one too far is a crash, not luck."""

    cdef uint8_t *pages
    cdef size_t size
    cdef const uint8_t *at
    cdef size_t length

    def __cinit__(self, bytes data not None):
        cdef size_t room = (len(data) + 4095) & ~<size_t>4095
        self.size = room + 4096
        self.length = len(data)
        self.pages = <uint8_t *>mmap(
            NULL, self.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if self.pages == <uint8_t *>MAP_FAILED or mprotect(self.pages + room, 4096, PROT_NONE) != 0:
            raise MemoryError
        memcpy(self.pages + room - self.length, <const char *>data, self.length)
        self.at = self.pages + room - self.length

    def __dealloc__(self):
        munmap(self.pages, self.size)


def serial_of(bytes der not None):
    """(reason, serial number as bytes) of a certificate; "": it is good."""
    cdef Guarded guarded = Guarded(der)
    cdef uint8_t serial[20]
    cdef uint8_t length = 0xff
    reason = der_serial(guarded.at, guarded.length, serial, &length)
    return REASONS[<int>reason], (<const char *>serial)[:length]


def fit_for_client(bytes der not None):
    """The reason why a certificate is no client's; "": it is good."""
    cdef Guarded guarded = Guarded(der)
    return REASONS[<int>der_fit_for_client(guarded.at, guarded.length)]


def validity_of(bytes der not None):
    """(from, until) of a certificate in seconds since 1970; None: not to be read."""
    cdef Guarded guarded = Guarded(der)
    cdef validity_t validity
    if not der_validity(guarded.at, guarded.length, &validity):
        return None
    return validity.from_s, validity.until_s


def validity_holds(int64_t from_s, int64_t until_s, uint64_t wall_ns):
    cdef validity_t validity
    validity.from_s = from_s
    validity.until_s = until_s
    return validity_covers(&validity, wall_ns)


# ---- PROXY headers ------------------------------------------------------------------------------

def proxy_header_of(bytes data not None):
    """What a PROXY header says: "more", "bad", or (its length, source, target), None if it does not say."""
    cdef Guarded guarded = Guarded(data)
    cdef proxy_header_t header
    cdef int found
    memset(&header, 0xff, sizeof(header))
    found = proxy_read(guarded.at, guarded.length, &header)
    if found == PROXY_MORE or found == PROXY_BAD:
        if header.source.sin6_family or header.target.sin6_family:
            raise AssertionError("it says something that nobody may believe")
        return "more" if found == PROXY_MORE else "bad"
    if header.source.sin6_family != header.target.sin6_family:
        raise AssertionError("two families")
    if header.source.sin6_family == 0:
        return found, None, None
    return found, show_address(&header.source), show_address(&header.target)


def holds(networks not None, bytes address not None):
    """Whether one of the networks, as (address, bits), holds a peer's address of 4 or 16 bytes."""
    cdef networks_t *made = networks_new(<uint32_t>len(networks))
    cdef sockaddr_in6 peer
    cdef bytes packed
    if made == NULL:
        raise MemoryError
    for i, (packed, bits) in enumerate(networks):
        networks_set(made, <uint32_t>i, packed, <uint8_t>len(packed), <uint8_t>bits)
    memset(&peer, 0, sizeof(peer))
    if len(address) == 4:
        peer.sin6_family = <uint16_t>linux.AF_INET
        memcpy(&(<sockaddr_in *>&peer).sin_addr, <const char *>address, 4)
    else:
        peer.sin6_family = <uint16_t>linux.AF_INET6
        memcpy(&peer.sin6_addr, <const char *>address, 16)
    held = networks_hold(made, &peer)
    free(made)
    return bool(held)


# ---- policy --------------------------------------------------------------------------------------

cdef name_t *name_of(str text) except NULL:
    cdef bytes encoded = text.encode()
    cdef name_t *name = name_new(encoded, <uint32_t>len(encoded))
    if name == NULL:
        raise MemoryError
    return name


cdef class Policy:
    """A native table. `clients`: (name, serials as bytes, applications, disabled)."""

    cdef policy_t *policy
    cdef readonly list refused

    def __cinit__(self, clients, apps):
        self.policy = policy_new(<uint32_t>sum(len(c[1]) for c in clients), <uint32_t>len(clients),
                                 <uint32_t>len(apps))
        if self.policy == NULL:
            raise MemoryError
        self.refused = []        # serials that were there already
        for column, app in enumerate(apps):
            self.policy.apps[<uint32_t>column] = name_of(app)
        for row, (name, serials, allowed, disabled) in enumerate(clients):
            self.policy.clients[<uint32_t>row] = name_of(name)
            for app in allowed:
                policy_allow(self.policy, row, apps.index(app))
            for serial in serials:
                if not policy_add(self.policy, <bytes>serial, <uint8_t>len(serial), row, disabled):
                    self.refused.append(serial)

    def __dealloc__(self):
        policy_unref(self.policy)

    def judge(self, bytes serial not None, str app not None):
        """(reason, name of the client or None)."""
        cdef name_t *wanted = name_of(app)
        cdef name_t *client = NULL
        reason = policy_judge(self.policy, serial, <uint8_t>len(serial), wanted, &client)
        name_unref(wanted)
        return REASONS[<int>reason], None if client == NULL else client.text[:client.length].decode()


# ---- verdicts ------------------------------------------------------------------------------------

def hash_of(bytes key not None):
    return verdict_hash(key, <uint32_t>len(key))


cdef class Verdicts:
    """A worker's cache of verdicts, with a clock and an epoch of the test's choosing."""

    cdef worker_t *worker

    def __cinit__(self):
        self.worker = <worker_t *>zeroed_lines(sizeof(worker_t))
        self.worker.snapshot = snapshot_new(0)
        if self.worker.snapshot == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.worker != NULL:
            verdicts_clear(self.worker)
            free(self.worker.verdicts)
            snapshot_unref(self.worker.snapshot)
            free(self.worker)

    def at(self, uint64_t now_ns, uint64_t epoch):
        self.worker.now_ns = now_ns
        self.worker.snapshot.epoch = epoch

    def insert(self, uint64_t listener, uint64_t tls, bytes key not None, str client not None,
               uint64_t epoch=0, uint64_t expires_ns=0):
        cdef verdict_t *verdict = verdict_new(<uint32_t>len(key))
        if verdict == NULL:
            raise MemoryError
        memcpy(verdict.key, <const char *>key, len(key))
        verdict.hash = verdict_hash(key, <uint32_t>len(key))
        verdict.listener_id = listener
        verdict.tls_id = tls
        verdict.epoch = epoch
        verdict.expires_ns = expires_ns
        verdict.client = name_of(client)
        verdicts_insert(self.worker, verdict)

    def find(self, uint64_t listener, uint64_t tls, bytes key not None):
        """The client's name, or None."""
        cdef verdict_t *verdict = verdicts_find(self.worker, listener, tls, key, <uint32_t>len(key))
        return None if verdict == NULL else verdict.client.text[:verdict.client.length].decode()

    def clear(self):
        verdicts_clear(self.worker)


# ---- pipes and strangers: a node with one worker -------------------------------------------------

cdef class Worker:
    """As much of a worker as its parts need, with connections numbered from 0."""

    cdef node_t *node
    cdef worker_t *worker
    cdef slab_t slab
    cdef list pipes              # addresses of those that are out

    def __cinit__(self, *, int64_t pipes_max=0, int64_t unauthenticated_max=0):
        self.node = <node_t *>zeroed_lines(sizeof(node_t))
        self.worker = <worker_t *>zeroed_lines(sizeof(worker_t))
        self.worker.node = self.node
        self.node.pipes_max = pipes_max
        self.node.unauthenticated_max = unauthenticated_max
        self.pipes = []
        if not slab_init(&self.slab, 256):
            raise MemoryError

    def __dealloc__(self):
        if self.worker != NULL:
            while self.pipes:
                self.give_pipe(0, False)
            pipes_fini(self.worker)
        slab_fini(&self.slab)
        free(self.worker)
        free(self.node)

    def take_pipe(self):
        """(read end, write end, room), or None: copy instead."""
        cdef pipe_t *pipe = pipe_take(self.worker)
        if pipe == NULL:
            return None
        self.pipes.append(<uintptr_t>pipe)
        return pipe.read_fd, pipe.write_fd, pipe.room

    def give_pipe(self, int which=0, bint full=False):
        """Gives one of those that are out back, with bytes left in it when `full`."""
        cdef pipe_t *pipe = <pipe_t *><uintptr_t>self.pipes.pop(which)
        pipe.length = 1 if full else 0
        pipe_give(self.worker, pipe)

    @property
    def pipes_made(self):
        return word_read(&self.node.pipes)

    @property
    def unauthenticated(self):
        return gauge_read(&self.node.unauthenticated)

    def enter(self):
        """A new stranger's index."""
        cdef conn_t *conn = slab_take(&self.slab)
        if conn == NULL:
            raise MemoryError
        stranger_enter(self.worker, conn)
        return conn.index

    def leave(self, uint32_t index):
        stranger_leave(self.worker, slab_slot(&self.slab, index))

    def strangers(self):
        """Indexes, the oldest first; the list read backwards must say the same."""
        cdef conn_t *conn = self.worker.strangers_head
        forwards = []
        while conn != NULL:
            forwards.append(conn.index)
            conn = conn.stranger_next
        conn = self.worker.strangers_tail
        backwards = []
        while conn != NULL:
            backwards.append(conn.index)
            conn = conn.stranger_prev
        if forwards[::-1] != backwards:
            raise AssertionError(f"strangers: {forwards} forwards, {backwards} backwards")
        return forwards

    def park(self):
        """A new connection that waits for the policy; its index."""
        cdef conn_t *conn = slab_take(&self.slab)
        if conn == NULL:
            raise MemoryError
        parking_enter(self.worker, conn)
        return conn.index

    def unpark(self, uint32_t index):
        parking_leave(self.worker, slab_slot(&self.slab, index))

    def parked(self):
        """Indexes, the last one parked first; every one must know who is before it."""
        cdef conn_t *conn = self.worker.parked
        cdef conn_t *before = NULL
        found = []
        while conn != NULL:
            if conn.parked_prev is not before or not conn.parked:
                raise AssertionError(f"parked: {conn.index} is linked wrongly")
            found.append(conn.index)
            before = conn
            conn = conn.parked_next
        return found

    def doomed(self):
        """(index, reason) of those that the worker is to close, the last doomed first; forgets them."""
        cdef conn_t *conn = self.worker.doomed
        found = []
        while conn != NULL:
            found.append((conn.index, REASONS[<int>conn.reason]))
            conn = conn.free_next
        self.worker.doomed = NULL
        return found


# ---- move: a plain connection between two sockets ------------------------------------------------

def room_to_read(Outbox waiting not None, *, bint from_tls, bint to_tls):
    """How much a direction may read beside what waits in the other one, for the peer that is read from."""
    cdef leg_t source
    cdef leg_t target
    memset(&source, 0, sizeof(leg_t))
    memset(&target, 0, sizeof(leg_t))
    source.out = waiting.chunk
    source.tls = <void *>&source if from_tls else NULL
    target.tls = <void *>&target if to_tls else NULL
    return move_room(&source, &target)


cdef ssize_t only_answers(void *io, uint8_t *plain, size_t room) noexcept nogil:
    """What a TLS library does with records that carry nothing: it answers each byte with one."""
    cdef tls_io_t *between = <tls_io_t *>io
    between.output_at = io_take(between, between.output, between.input_length)
    return TLS_WANT_READ


cdef class Mover:
    """The two legs of a plain connection, and what a worker needs to move its bytes by splice or, without
    a budget for pipes, by copying. The sockets stay the caller's."""

    cdef node_t *node
    cdef worker_t *worker
    cdef conn_t conn

    def __cinit__(self, int client_fd, int upstream_fd, *, int64_t pipes_max):
        self.node = <node_t *>zeroed_lines(sizeof(node_t))
        self.worker = <worker_t *>zeroed_lines(sizeof(worker_t))
        self.worker.node = self.node
        self.node.pipes_max = pipes_max
        self.worker.scratch_in = <uint8_t *>zeroed_lines(SCRATCH_BYTES)
        self.worker.scratch_out = <uint8_t *>zeroed_lines(SCRATCH_BYTES)
        self.conn.client.fd = client_fd
        self.conn.upstream.fd = upstream_fd

    def __dealloc__(self):
        if self.worker != NULL:
            self.forget(&self.conn.client)
            self.forget(&self.conn.upstream)
            pipes_fini(self.worker)
            chunk_pool_fini(&self.worker.chunks)
            free(self.worker.scratch_in)
            free(self.worker.scratch_out)
        free(self.worker)
        free(self.node)

    cdef void forget(self, leg_t *leg) noexcept:
        leg_drop(self.worker, leg)
        if leg.pipe != NULL:
            pipe_give(self.worker, leg.pipe)
            leg.pipe = NULL

    def move(self, bint up):
        """What a worker does when it wakes up for one direction: what waits first, else one batch."""
        cdef leg_t *source = &self.conn.client if up else &self.conn.upstream
        cdef leg_t *target = &self.conn.upstream if up else &self.conn.client
        cdef int problem
        if target.out != NULL:
            problem = leg_flush(self.worker, target)
        else:
            problem = move_bytes(&self.conn, self.worker, source, target)
        if problem != 0:
            raise OSError(problem, "move")

    def give(self, bytes data not None, *, bint piecemeal):
        """To the upstream, as if the client had sent it."""
        if piecemeal:
            self.conn.upstream.flags |= LEG_PIECEMEAL
        cdef int problem = leg_put_payload(self.worker, &self.conn.upstream, data, len(data))
        if problem != 0:
            raise OSError(problem, "give")

    def answer(self, size_t length):
        """TLS answers so much to what it read from the upstream. None, or why that is read no further."""
        cdef tls_engine_t engine
        cdef size_t used
        cdef const char *refusal = NULL
        memset(&engine, 0, sizeof(engine))
        engine.recv = only_answers
        self.worker.tls_engine = &engine
        self.conn.upstream.tls = &self.worker.io
        leg_io(self.worker, self.worker.scratch_in, length)
        cdef int problem = leg_decrypt(self.worker, &self.conn.upstream, &used, &refusal)
        self.conn.upstream.tls = NULL
        self.worker.tls_engine = NULL
        if problem != 0:
            raise OSError(problem, "answer")
        return None if refusal == NULL else refusal.decode()

    def quiet(self):
        """Nothing has moved for a while."""
        if (
            move_out_of_pipe(self.worker, &self.conn.client, &self.conn.upstream) != 0
            or move_out_of_pipe(self.worker, &self.conn.upstream, &self.conn.client) != 0
        ):
            raise OSError("quiet")

    @property
    def piecemeal(self):
        """Whether (the client, the upstream) is sent little at once."""
        return bool(self.conn.client.flags & LEG_PIECEMEAL), bool(self.conn.upstream.flags & LEG_PIECEMEAL)

    @property
    def pipes_out(self):
        return (self.conn.client.pipe != NULL) + (self.conn.upstream.pipe != NULL)

    @property
    def moved(self):
        """Bytes counted as taken from (the client, the upstream)."""
        return self.conn.client.bytes, self.conn.upstream.bytes

    @property
    def held(self):
        """Memory for bytes that wait: chunks whole, pipes as far as they are filled."""
        cdef uint64_t total = 0
        if self.conn.client.out != NULL:
            total += sizeof(chunk_t) + self.conn.client.out.room
        if self.conn.upstream.out != NULL:
            total += sizeof(chunk_t) + self.conn.upstream.out.room
        if self.conn.client.pipe != NULL:
            total += self.conn.client.pipe.length
        if self.conn.upstream.pipe != NULL:
            total += self.conn.upstream.pipe.length
        return total


# ---- worker --------------------------------------------------------------------------------------

def worker_for(size_t overhead_record, size_t overhead_call):
    """Makes a worker for a TLS library whose records add that much; the errno of the refusal."""
    cdef tls_engine_t engine
    memset(&engine, 0, sizeof(engine))
    engine.overhead_record = overhead_record
    engine.overhead_call = overhead_call
    cdef worker_t *worker = worker_new(NULL, 0, &engine, NULL, 1)
    if worker != NULL:
        raise AssertionError("made for an engine without functions")
    return linux.errno


cdef class Interest:
    """The client's leg of a connection in an epoll set; the socket stays the caller's."""

    cdef conn_t conn
    cdef int epoll_fd

    def __cinit__(self, int fd):
        self.conn.index = 7
        self.conn.generation = 3
        self.conn.client.fd = fd
        self.epoll_fd = linux.epoll_create1(linux.EPOLL_CLOEXEC)

    def __dealloc__(self):
        linux.close(self.epoll_fd)

    def want(self, *, bint reading=False, bint writing=False):
        """0 or an errno."""
        cdef uint32_t wanted = 0
        if reading:
            wanted |= linux.EPOLLIN
        if writing:
            wanted |= linux.EPOLLOUT
        return poller_want(self.epoll_fd, &self.conn, &self.conn.client, wanted)

    def events(self):
        """What epoll tells now: sets of words."""
        cdef linux.epoll_event events[4]
        cdef int i
        found = []
        for i in range(linux.epoll_wait(self.epoll_fd, events, 4, 0)):
            tag = events[i].data.u64
            if tag_kind(tag) != EVENT_CLIENT or tag_index(tag) != 7 or tag_generation(tag) != 3:
                raise AssertionError(f"an event for somebody else: {tag:x}")
            if events[i].events & linux.EPOLLHUP:
                self.conn.client.flags |= LEG_HUNG_UP
            found.append({word for word, bit in (("in", linux.EPOLLIN), ("out", linux.EPOLLOUT),
                                                 ("hup", linux.EPOLLHUP)) if events[i].events & bit})
        return found


def tune(int fd, uint32_t keepalive_s):
    """0 or an errno."""
    return socket_tune(fd) or socket_keep_alive(fd, keepalive_s)


def will_reset(int fd):
    socket_will_reset(fd)


def unacknowledged(int fd):
    return socket_unacknowledged(fd)


def is_paced(int fd):
    return bool(socket_is_paced(fd))


def pending_error(int fd):
    return socket_error(fd)


def is_connected(int fd):
    return socket_is_connected(fd)


cdef class Watcher:
    """A worker's epoll set, and listeners on descriptors that stay the caller's."""

    cdef node_t *node
    cdef worker_t *worker

    def __cinit__(self, fds):
        cdef uint32_t i
        self.node = <node_t *>zeroed_lines(sizeof(node_t))
        self.worker = <worker_t *>zeroed_lines(sizeof(worker_t))
        self.worker.node = self.node
        self.worker.epoll_fd = linux.epoll_create1(linux.EPOLL_CLOEXEC)
        self.worker.snapshot = snapshot_new(<uint32_t>len(fds))
        if self.worker.epoll_fd < 0 or self.worker.snapshot == NULL:
            raise MemoryError
        for i in range(self.worker.snapshot.listener_count):
            self.worker.snapshot.listeners[i] = listener_new()
            if self.worker.snapshot.listeners[i] == NULL:
                raise MemoryError
            self.worker.snapshot.listeners[i].fd = fds[i]

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.worker.snapshot.listener_count):
            self.worker.snapshot.listeners[i].fd = -1
        snapshot_unref(self.worker.snapshot)
        linux.close(self.worker.epoll_fd)
        free(self.worker)
        free(self.node)

    def watch(self):
        watch_listeners(self.worker, True)

    @property
    def ready(self):
        """How many of the listeners epoll tells of now."""
        cdef linux.epoll_event events[16]
        return linux.epoll_wait(self.worker.epoll_fd, events, 16, 0)

    @property
    def paused(self):
        """Whether accepting pauses, with an end in sight."""
        return bool(self.worker.accept_paused) and self.worker.accept_paused_until_ns > self.worker.now_ns

    @property
    def errors(self):
        return counter_read(&self.node.accept_errors)


cdef class Loop:
    """A worker's epoll set and connections that dial, in turns of the test's choosing: collecting events is
    one step, dispatching them another. The sockets stay the caller's."""

    cdef node_t *node
    cdef worker_t *worker
    cdef linux.epoll_event events[16]
    cdef int collected

    def __cinit__(self):
        self.node = <node_t *>zeroed_lines(sizeof(node_t))
        self.worker = <worker_t *>zeroed_lines(sizeof(worker_t))
        self.worker.node = self.node
        self.worker.scratch_in = <uint8_t *>zeroed_lines(SCRATCH_BYTES)
        self.worker.epoll_fd = linux.epoll_create1(linux.EPOLL_CLOEXEC)
        if self.worker.epoll_fd < 0 or not slab_init(&self.worker.slab, 256):
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t i
        if self.worker != NULL:
            for i in range(self.worker.slab.next_index):
                leg_drop(self.worker, &slab_slot(&self.worker.slab, i).upstream)
                early_drop(slab_slot(&self.worker.slab, i), self.worker)
            chunk_pool_fini(&self.worker.chunks)
            slab_fini(&self.worker.slab)
            linux.close(self.worker.epoll_fd)
            free(self.worker.scratch_in)
        free(self.worker)
        free(self.node)

    def open(self, int client_fd, int upstream_fd):
        """A new connection that waits for its upstream; its slot. Both sockets are watched for bytes."""
        cdef conn_t *conn = slab_take(&self.worker.slab)
        if conn == NULL:
            raise MemoryError
        conn.stage = STAGE_DIAL
        conn.client.fd = client_fd
        conn.upstream.fd = upstream_fd
        if (
            poller_want(self.worker.epoll_fd, conn, &conn.client, linux.EPOLLIN) != 0
            or poller_want(self.worker.epoll_fd, conn, &conn.upstream, linux.EPOLLIN) != 0
        ):
            raise OSError("cannot be watched")
        return conn.index

    def close(self, uint32_t index):
        """It ends and gives its slot back."""
        cdef conn_t *conn = slab_slot(&self.worker.slab, index)
        poller_remove(self.worker.epoll_fd, conn.client.fd)
        poller_remove(self.worker.epoll_fd, conn.upstream.fd)
        leg_drop(self.worker, &conn.upstream)
        early_drop(conn, self.worker)
        slab_give(&self.worker.slab, conn)

    def doom(self, uint32_t index):
        """It is to be closed once the events of this turn are dispatched."""
        slab_slot(&self.worker.slab, index).doomed = True

    def collect(self):
        """What epoll tells now; how many events that is."""
        self.collected = linux.epoll_wait(self.worker.epoll_fd, self.events, 16, 0)
        return self.collected

    def dispatch(self):
        """What the worker does with what was collected."""
        cdef int i
        for i in range(self.collected):
            dispatch(self.worker, self.events[i].data.u64, self.events[i].events)

    def reached(self, uint32_t index):
        """Which legs of the connection in that slot an event has come to."""
        cdef conn_t *conn = slab_slot(&self.worker.slab, index)
        reached = set()
        if conn.client.bytes > 0 or conn.client.flags != 0:
            reached.add("client")
        if conn.upstream.flags != 0:
            reached.add("upstream")
        return reached


# ---- layout --------------------------------------------------------------------------------------

def sizes():
    """Bytes of the structs that there are many of."""
    return {
        "conn_t": sizeof(conn_t),
        "leg_t": sizeof(leg_t),
        "message_t": sizeof(message_t),
        "record_t": sizeof(record_t),
        "ask_t": sizeof(ask_t),
        "gauge_t": sizeof(gauge_t),
        "upstream_t": sizeof(upstream_t),
        "limiter_t": sizeof(limiter_t),
    }


def gauge_places():
    """Where each gauge lies in a struct as it is really allocated: name -> address."""
    cdef Pool pool = Pool([(1, 0), (1, 0)])
    cdef Limiter limiter = Limiter()
    cdef Ring ring = Ring(2)
    cdef Worker worker = Worker()
    return {
        "upstream.in_flight": <uintptr_t>&pool.pool.upstreams[0].in_flight,
        "next upstream.in_flight": <uintptr_t>&pool.pool.upstreams[1].in_flight,
        "app.open": <uintptr_t>&pool.app.open,
        "limiter.open": <uintptr_t>&limiter.cell.open,
        "ring.head": <uintptr_t>&ring.ring.head,
        "ring.tail": <uintptr_t>&ring.ring.tail,
        "node.open": <uintptr_t>&worker.node.open,
        "node.unauthenticated": <uintptr_t>&worker.node.unauthenticated,
        "worker.load": <uintptr_t>&worker.worker.load,
        "worker.inbox.head": <uintptr_t>&worker.worker.inbox.head,
        "worker.records.tail": <uintptr_t>&worker.worker.records.tail,
    }


# ---- records ---------------------------------------------------------------------------------------

def record_line(settings, str boot, str app, bytes source, *, reason, client=None, serial=b"", cipher=None,
                upstream=None, error=None, **numbers):
    """What becomes of one record: whether the core wrote a line of it, and the Record that Python reads.

    `source` is a sockaddr_in or sockaddr_in6; `cipher` and `error` are bytes that outlive the call."""
    cdef record_t entry
    cdef LineBuffer lines = LineBuffer(settings)
    cdef bint taken
    memset(&entry, 0, sizeof(entry))
    entry.app_id = 1
    entry.reason = <reason_t><int>REASONS.index(reason)
    entry.stage = STAGE_FORWARD
    entry.id = numbers.get("id", 1)
    entry.worker = numbers.get("worker", 0)
    entry.wall_ns = numbers.get("wall_ns", 0)
    entry.handshake_ns = numbers.get("handshake_ns", 0)
    entry.connect_ns = numbers.get("connect_ns", 0)
    entry.duration_ns = numbers.get("duration_ns", 0)
    entry.waited_ns = numbers.get("waited_ns", 0)
    entry.would_deny = <reason_t><int>numbers.get("would_deny", 0)
    entry.scope = <scope_t><int>numbers.get("scope", 0)
    entry.bytes_in = numbers.get("bytes_in", 0)
    entry.bytes_out = numbers.get("bytes_out", 0)
    entry.attempts = numbers.get("attempts", 1)
    entry.sys_errno = numbers.get("sys_errno", 0)
    entry.forwarded = numbers.get("forwarded", True)
    entry.tls = cipher is not None
    entry.cipher = <const char *>cipher if cipher is not None else NULL
    entry.tls_error = <const char *>error if error is not None else NULL
    memcpy(&entry.source, <const char *>source, len(source))
    memcpy(entry.serial, <const char *>serial, len(serial))
    entry.serial_length = <uint8_t>len(serial)
    entry.client = make_name(client) if client is not None else NULL
    entry.upstream = make_name(upstream) if upstream is not None else NULL
    try:
        taken = lines.take(&entry, boot.encode(), app)
        while taken and not lines.is_full():
            lines.take(&entry, boot.encode(), app)
        if lines.length > <size_t>LINES_BYTES:
            raise AssertionError(f"{lines.length} bytes in a buffer of {LINES_BYTES}")
        if not taken:
            lines.put_text_of(read_record(&entry, boot, {1: app}))
        lines.flush()
        return taken, read_record(&entry, boot, {1: app})
    finally:
        name_unref(entry.client)
        name_unref(entry.upstream)
