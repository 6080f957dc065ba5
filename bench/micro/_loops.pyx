"""Loops around the parts of the core that are timed: the same compiled functions that the workers call.

Each `run(count)` does `count` units and answers nanoseconds for all of them; without the interpreter's lock,
but for the lines, which only a Python thread writes.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free

from lbcore import RecordLines

from lbcore.application cimport Application
from lbcore.codes cimport REASON_CLIENT_CLOSED
from lbcore.limits cimport RateLimitManager
from lbcore.parts.balance cimport (
    balance_give,
    balance_hash,
    balance_pick,
    balance_pick_for,
    balance_turn,
    choice_t,
)
from lbcore.parts.cells cimport lines_new, name_unref, snapshot_new, snapshot_unref, verdict_new
from lbcore.parts.limiter cimport limiter_close, limiter_open, refusal_t
from lbcore.parts.timers cimport timer_arm, timer_disarm, timer_expired, wheel_init
from lbcore.parts.verdicts cimport verdict_hash, verdicts_clear, verdicts_find, verdicts_insert
from lbcore.record_lines cimport LineBuffer
from lbcore.structs cimport (
    SCOPES_MAX,
    TIMER_NONE,
    conn_t,
    record_t,
    stamp_t,
    taken_t,
    verdict_t,
    wheel_t,
    worker_t,
)
from lbcore.sys.linux cimport AF_INET, memcpy, monotonic_ns, sockaddr_in
from lbcore.to_core cimport make_name

cdef enum:
    CLIENTS = 64                 # that come by turns: more than one, so that a cache line is not all there is
    KEY_BYTES = 512              # of a client's certificate, as the verdicts are found by
    SECOND_NS = 1000000000
    STEP_NS = 1000               # between two opens
    ENDS_NS = 1000000            # between two connections that end
    SERIAL_BYTES = 20            # the longest that a certificate may have


cdef class Limits:
    """One unit: a connection is opened in all scopes and closed, each a microsecond after the one before."""

    cdef RateLimitManager manager
    cdef uint64_t now_ns

    def __init__(self, RateLimitManager manager not None):
        self.manager = manager
        self.now_ns = monotonic_ns()

    def run(self, uint32_t count):
        cdef refusal_t refusal
        cdef stamp_t stamps[SCOPES_MAX]
        cdef taken_t taken
        cdef uint64_t started_ns = monotonic_ns()
        cdef uint64_t now_ns = self.now_ns
        cdef uint32_t refused = 0
        cdef uint32_t _i
        taken.stamps = stamps
        with nogil:
            for _i in range(count):
                now_ns += STEP_NS
                if limiter_open(&self.manager.chain, now_ns, now_ns, &taken, &refusal):
                    limiter_close(&self.manager.chain)
                else:
                    refused += 1
        self.now_ns = now_ns
        if refused:
            raise RuntimeError(f"{refused} of {count} were refused")
        return monotonic_ns() - started_ns


cdef class Refusals:
    """One unit: a connection is refused by the cap. Whoever fills it is the caller."""

    cdef RateLimitManager manager

    def __init__(self, RateLimitManager manager not None):
        self.manager = manager

    def run(self, uint32_t count):
        cdef refusal_t refusal
        cdef stamp_t stamps[SCOPES_MAX]
        cdef taken_t taken
        cdef uint64_t started_ns = monotonic_ns()
        cdef uint32_t admitted = 0
        cdef uint32_t _i
        taken.stamps = stamps
        with nogil:
            for _i in range(count):
                admitted += limiter_open(&self.manager.chain, started_ns, started_ns, &taken, &refusal)
        if admitted:
            raise RuntimeError(f"{admitted} of {count} were admitted")
        return monotonic_ns() - started_ns


cdef class Picks:
    """One unit: an upstream is picked, by least connections or, with affinity, for one of some clients, and
    given back."""

    cdef Application application
    cdef bint affinity
    cdef uint64_t clients[CLIENTS]

    def __init__(self, Application application not None, *, affinity=False):
        cdef uint32_t i
        self.application = application
        self.affinity = affinity
        for i in range(CLIENTS):
            self.clients[i] = balance_hash(&i, sizeof(i))

    def run(self, uint32_t count):
        cdef choice_t choice
        cdef bint found
        cdef uint64_t started_ns = monotonic_ns()
        cdef uint32_t lost = 0
        cdef uint32_t i
        with nogil:
            for i in range(count):
                if self.affinity:
                    found = balance_pick_for(
                        self.application.cell, self.clients[i % CLIENTS], NULL, 0, started_ns, &choice)
                else:
                    found = balance_pick(self.application.cell, balance_turn(self.application.cell), NULL, 0,
                                         started_ns, &choice)
                if found:
                    balance_give(choice.upstream)
                else:
                    lost += 1
        if lost:
            raise RuntimeError(f"nobody was picked {lost} times in {count}")
        return monotonic_ns() - started_ns


cdef class Verdicts:
    """One unit: a worker looks for the verdict on one of some clients; they are all there, or none is."""

    cdef worker_t *worker
    cdef uint8_t keys[CLIENTS][KEY_BYTES]
    cdef bint hit

    def __cinit__(self, *, hit):
        cdef uint32_t i
        cdef uint32_t j
        self.hit = hit
        self.worker = <worker_t *>zeroed(sizeof(worker_t))
        self.worker.snapshot = snapshot_new(0)
        if self.worker.snapshot == NULL:
            raise MemoryError
        for i in range(CLIENTS):
            for j in range(KEY_BYTES):
                self.keys[i][j] = <uint8_t>(i * 31 + j * 7)
            self.insert(self.keys[i])

    def __dealloc__(self):
        if self.worker != NULL:
            verdicts_clear(self.worker)
            free(self.worker.verdicts)
            snapshot_unref(self.worker.snapshot)
            free(self.worker)

    cdef insert(self, const uint8_t *key):
        cdef verdict_t *verdict = verdict_new(KEY_BYTES)
        if verdict == NULL:
            raise MemoryError
        memcpy(verdict.key, key, KEY_BYTES)
        verdict.hash = verdict_hash(key, KEY_BYTES)
        verdict.listener_id = 1
        verdicts_insert(self.worker, verdict)

    def run(self, uint32_t count):
        cdef uint64_t started_ns = monotonic_ns()
        cdef uint64_t listener = 1 if self.hit else 2
        cdef uint32_t found = 0
        cdef uint32_t i
        with nogil:
            for i in range(count):
                found += verdicts_find(
                    self.worker, listener, 0, self.keys[i % CLIENTS], KEY_BYTES) != NULL
        if found != (count if self.hit else 0):
            raise RuntimeError(f"{found} of {count} were found")
        return monotonic_ns() - started_ns


cdef class Timers:
    """A worker's timer wheel. One unit: a deadline is armed and disarmed ("arm"), or is moved ("move"), or is
    armed and comes ("expire")."""

    cdef wheel_t *wheel
    cdef conn_t *conns
    cdef str what
    cdef uint64_t now_ns

    def __cinit__(self, str what not None):
        cdef uint32_t i
        if what not in ("arm", "move", "expire"):
            raise ValueError(f"what: {what!r}")
        self.what = what
        self.wheel = <wheel_t *>zeroed(sizeof(wheel_t))
        self.conns = <conn_t *>zeroed(CLIENTS * sizeof(conn_t))
        for i in range(CLIENTS):
            self.conns[i].index = i
            self.conns[i].timer_slot = TIMER_NONE
        self.now_ns = SECOND_NS
        wheel_init(self.wheel, self.now_ns)
        if what == "move":
            for i in range(CLIENTS):
                timer_arm(self.wheel, &self.conns[i], self.now_ns + (i + 1) * <uint64_t>SECOND_NS)

    def __dealloc__(self):
        free(self.conns)
        free(self.wheel)

    def run(self, uint32_t count):
        cdef uint64_t started_ns = monotonic_ns()
        cdef uint32_t fired
        cdef bint arm = self.what == "arm"
        cdef bint move = self.what == "move"
        with nogil:
            if arm:
                arm_all(self.wheel, self.conns, self.now_ns, count)
            elif move:
                move_all(self.wheel, self.conns, self.now_ns, count)
            else:
                fired = expire_all(self.wheel, self.conns, &self.now_ns, count)
        if not arm and not move and fired != count:
            raise RuntimeError(f"{fired} of {count} fired")
        return monotonic_ns() - started_ns


cdef void arm_all(wheel_t *wheel, conn_t *conns, uint64_t now_ns, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        timer_arm(wheel, &conns[i % CLIENTS], now_ns + (i % 128 + 1) * <uint64_t>SECOND_NS)
        timer_disarm(wheel, &conns[i % CLIENTS])


cdef void move_all(wheel_t *wheel, conn_t *conns, uint64_t now_ns, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        timer_arm(wheel, &conns[i % CLIENTS], now_ns + (i // CLIENTS % 128 + 1) * <uint64_t>SECOND_NS)


cdef uint32_t expire_all(wheel_t *wheel, conn_t *conns, uint64_t *now_ns, uint32_t count) noexcept nogil:
    """All clients have their deadline within the next second, and then the clock goes there."""
    cdef uint32_t fired = 0
    cdef uint32_t left = count
    cdef uint32_t round
    cdef uint32_t i
    while left > 0:
        round = left if left < <uint32_t>CLIENTS else <uint32_t>CLIENTS
        for i in range(round):
            timer_arm(wheel, &conns[i], now_ns[0] + <uint64_t>SECOND_NS // 2)
        left -= round
        now_ns[0] += <uint64_t>SECOND_NS
        while timer_expired(wheel, now_ns[0]) != NULL:
            fired += 1
    return fired


cdef class Lines:
    """One unit: the line of a connection that was forwarded and has ended, with TLS or without; written out
    whenever the buffer is full, as the record thread does it."""

    cdef LineBuffer buffer
    cdef record_t entry
    cdef uint64_t written

    def __cinit__(self, *, tls):
        cdef uint32_t i
        self.entry.id = 1000000
        self.entry.reason = REASON_CLIENT_CLOSED
        self.entry.wall_ns = 1700000000 * <uint64_t>SECOND_NS
        self.entry.connect_ns = 123000
        self.entry.duration_ns = 4567000
        self.entry.bytes_in = self.entry.bytes_out = 1234
        self.entry.attempts = 1
        self.entry.forwarded = True
        (<sockaddr_in *>&self.entry.source).sin_family = AF_INET
        self.entry.upstream = make_name("127.0.0.1:5432")
        if tls:
            self.entry.client = make_name("client 0")
            self.entry.tls = True
            self.entry.cipher = b"TLS_AES_128_GCM_SHA256"
            self.entry.handshake_ns = 1234000
            self.entry.serial_length = SERIAL_BYTES
            for i in range(SERIAL_BYTES):
                self.entry.serial[i] = <uint8_t>(i * 31 + 1)

    def __init__(self, *, tls):
        self.buffer = LineBuffer(RecordLines(self._write, "lb-1", str))

    def __dealloc__(self):
        name_unref(self.entry.client)
        name_unref(self.entry.upstream)

    def _write(self, lines):
        self.written += lines.count(b"\n")

    def run(self, uint32_t count):
        cdef uint64_t started_ns = monotonic_ns()
        cdef uint32_t _i
        self.written = 0
        for _i in range(count):
            self.entry.id += 1
            self.entry.wall_ns += ENDS_NS
            self.buffer.take(&self.entry, b"19a2f00d", "orders")
        self.buffer.flush()
        if self.written != count:
            raise RuntimeError(f"{self.written} lines of {count} were written")
        return monotonic_ns() - started_ns


cdef void *zeroed(size_t size) except NULL:
    """Zeroed memory on a cache line, as structs with gauges need it."""
    cdef void *memory = lines_new(size)
    if memory == NULL:
        raise MemoryError
    return memory
