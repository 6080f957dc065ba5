"""RateLimitManager: limits of one scope, shared by workers and Python threads."""

from libc.stdint cimport int64_t, uint64_t

from lbcore.clock import ManualClock
from lbcore.limit_state import LimitState, pack, unpack
from lbcore.limit_values import DEPTH_MAX, MODES, SCOPES, Admission, LimitClass

from lbcore.parts.bandwidth cimport bandwidth_debt_ns, bandwidth_owe, bandwidth_reserve
from lbcore.parts.cells cimport limiter_new, limiter_ref, limiter_unref
from lbcore.parts.limiter cimport (
    LIMIT_NONE,
    LIMIT_OPEN,
    LIMIT_RATE,
    limit_t,
    limiter_open,
    refusal_t,
)
from lbcore.parts.opening cimport STAMP_SHIFT, STRUCK_OUT, window_new, window_stamp
from lbcore.parts.scopes cimport scopes_add
from lbcore.parts.succession cimport succession_new
from lbcore.structs cimport (
    MODE_DELAY,
    MODE_SHADOW,
    SCOPE_DEPTH_MAX,
    bandwidth_t,
    limit_mode_t,
    scope_t,
    stamp_t,
    taken_t,
    window_t,
)
from lbcore.sys.atomics cimport (
    counter_add,
    counter_read,
    gauge_give_above,
    gauge_give,
    gauge_read,
    word_read,
    word_write,
)
from lbcore.sys.linux cimport monotonic_ns

cdef object ADMITTED = Admission(True)
AMOUNT_MAX = 2**40               # bytes in one event

# In the order of limit_mode_t and, from 1, of scope_t.
assert MODES == ("refuse", "delay", "shadow")
assert SCOPES == ("client", "application", "global")
assert DEPTH_MAX == SCOPE_DEPTH_MAX


def scope_name(int scope):
    """The word for a scope in verdicts and logs, or None."""
    return SCOPES[scope - 1] if scope else None


cdef str limit_name(limit_t limit):
    if limit == LIMIT_NONE:
        return None
    return "concurrent" if limit == LIMIT_OPEN else "rate" if limit == LIMIT_RATE else "window"


cdef class RateLimitManager:
    """Counts the connections of one scope and says when one is too many.

    The same object may be used by any number of threads, connections and applications: those that share
    it share its limits. Every method is atomic and takes no lock.

    With a ``parent``, what happens here counts there too: a client in an application in the whole node. An
    attempt takes something in every scope or nothing in any. The mode of each scope is its own.

    Args:
        name: for logs and errors.
        max_open: connections open at once, or None for no cap.
        rate: connections opened per second, or None for no rate; a token bucket (GCRA, ITU-T I.371) on the
            monotonic clock.
        burst: opens that may come at once; default: one second's worth, at least 1.
        window: (opens, seconds): never more opens than that in any period of that length; at most 65536.
        bandwidth_in: bytes per second from clients to upstreams, shared by all connections of the
            scope; or None. An eighth of a second's worth may come at once.
        bandwidth_out: the same from upstreams to clients.
        max_lifetime: seconds a connection may last from the moment it was admitted, or None.
        on_exceed: ``"refuse"``; ``"delay"``: hold a connection back, nothing dialled, until it may, fair
            between clients; ``"shadow"``: admit it, and count what would have been refused. Bandwidth
            always slows down, and a shadow scope's bandwidth and lifetime do nothing.
        max_wait: seconds a connection is delayed at most; required with ``"delay"``.
        replace_oldest: at ``max_open``, a new connection ends the oldest one of this scope (reason
            ``replaced``) instead of being refused. Connections of an engine only; of the scopes around a
            connection only the innermost that says so replaces.
        scope: what this counts, for verdicts and logs: ``"client"``, ``"application"`` or ``"global"``.
        parent: the scope around this one, or None; 4 scopes at most.
        clock: a ManualClock for tests; such a manager cannot serve connections of an engine.

    Attributes:
        limits: all of the limits above, as a LimitClass.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __cinit__(self, *args, **kwargs):
        self.cell = limiter_new()
        if self.cell == NULL:
            raise MemoryError

    def __init__(
        self,
        str name not None,
        *,
        max_open=None,
        rate=None,
        burst=None,
        window=None,
        bandwidth_in=None,
        bandwidth_out=None,
        max_lifetime=None,
        on_exceed="refuse",
        max_wait=None,
        replace_oldest=False,
        scope="client",
        parent=None,
        clock=None,
    ):
        if self.name is not None:
            raise RuntimeError("RateLimitManager: already made")
        limits = LimitClass(
            max_open=max_open, rate=rate, burst=burst, window=window, bandwidth_in=bandwidth_in,
            bandwidth_out=bandwidth_out, max_lifetime=max_lifetime, on_exceed=on_exceed, max_wait=max_wait,
            replace_oldest=replace_oldest)
        if not isinstance(scope, str) or scope not in SCOPES:
            raise ValueError(f"scope: one of {', '.join(SCOPES)}, not {scope!r}")
        check_parent(parent, clock)
        self.cell.scope = <scope_t><int>(SCOPES.index(scope) + 1)
        self.cell.mode = <limit_mode_t><int>MODES.index(on_exceed)
        self.cell.open_max = max_open or 0
        if rate is not None:
            self.cell.interval_ns = <uint64_t>max(1, round(1e9 / rate))
            self.cell.burst_ns = self.cell.interval_ns * <uint64_t>(burst or max(1, int(rate)))
        self.cell.lifetime_ns = <uint64_t>round((max_lifetime or 0) * 1e9)
        self.cell.wait_max_ns = <uint64_t>round((max_wait or 0) * 1e9)
        set_rate(&self.cell.bandwidth[0], bandwidth_in)
        set_rate(&self.cell.bandwidth[1], bandwidth_out)
        self._allocate(limits)
        if parent is not None:
            self.parent = parent
            self.cell.parent = limiter_ref(self.parent.cell)
        scopes_add(&self.chain, self.cell)
        self.limits = limits
        self.clock = clock
        self.name = name

    cdef _allocate(self, limits):
        if limits.window is not None and self.cell.window == NULL:
            self.cell.window = window_new(
                <uint64_t>limits.window[0], <uint64_t>round(limits.window[1] * 1e9))
            if self.cell.window == NULL:
                raise MemoryError
        if limits.replace_oldest and self.cell.succession == NULL:
            self.cell.succession = succession_new()
            if self.cell.succession == NULL:
                raise MemoryError

    def __dealloc__(self):
        limiter_unref(self.cell)

    cdef uint64_t now_ns(self) except? 0:
        return monotonic_ns() if self.clock is None else <uint64_t>self.clock.ns

    cdef check_usable(self, str argument):
        if self.name is None:
            raise ValueError(f"{argument}: a RateLimitManager whose __init__ was not called")
        if self.clock is not None:
            raise ValueError(f"{argument}: a RateLimitManager with a clock of its own is for simulations")

    # ---- counters

    @property
    def scope(self):
        """What it counts: ``client``, ``application`` or ``global``."""
        return scope_name(self.cell.scope)

    @property
    def open(self):
        """Connections admitted and not closed."""
        return gauge_read(&self.cell.open)

    @property
    def admitted(self):
        """Connections admitted so far."""
        return counter_read(&self.cell.admitted)

    @property
    def refused(self):
        """Attempts refused so far; one that is held back counts at each try."""
        return counter_read(&self.cell.refused)

    @property
    def would_refuse(self):
        """Connections admitted only because the mode is shadow."""
        return counter_read(&self.cell.would_refuse)

    @property
    def waiting(self):
        """Connections this scope holds back now."""
        return word_read(&self.cell.waiting)

    @property
    def bytes_in(self):
        """Bytes from clients: of connections that ended, and what ``data_transferred`` reported."""
        return counter_read(&self.cell.bytes_in)

    @property
    def bytes_out(self):
        """Bytes to clients, likewise."""
        return counter_read(&self.cell.bytes_out)

    # ---- events

    def connection_opened(self):
        """Takes a slot and a token in this scope and all around it, or nothing.

        Returns:
            Admission: true when admitted; then ``connection_closed`` must follow exactly once.
        """
        cdef refusal_t refusal
        cdef stamp_t stamps[4]
        cdef taken_t taken
        cdef uint64_t now_ns = self.now_ns()
        cdef RateLimitManager refuser
        taken.stamps = stamps
        if limiter_open(&self.chain, now_ns, now_ns, &taken, &refusal):
            if refusal.shadow == LIMIT_NONE:
                return ADMITTED
            return Admission(True, shadow=limit_name(refusal.shadow))
        refuser = self
        while refuser.cell is not refusal.limiter:
            refuser = refuser.parent
        return Admission(
            False, refuser.scope, limit_name(refusal.limit), refuser.name, refusal.wait_ns / 1e9,
            refuser.cell.mode == MODE_DELAY)

    def data_transferred(self, bytes_in=0, bytes_out=0):
        """Charges bytes that were moved, here and in all scopes around.

        Args:
            bytes_in: from the client.
            bytes_out: to the client.

        Returns:
            Admission: true when more may be moved at once; else ``wait`` says how long to pause.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        cdef RateLimitManager manager = self
        cdef RateLimitManager slowest = None
        cdef uint64_t now_ns = self.now_ns()
        cdef uint64_t latest_ns = now_ns
        cdef uint64_t ready_ns
        cdef uint64_t amounts[2]
        cdef int direction
        cdef int slow = 0
        amounts[0] = check_amount("bytes_in", bytes_in)
        amounts[1] = check_amount("bytes_out", bytes_out)
        while manager is not None:
            counter_add(&manager.cell.bytes_in, amounts[0])
            counter_add(&manager.cell.bytes_out, amounts[1])
            for direction in range(2):
                if amounts[direction] and manager.cell.bandwidth[direction].rate:
                    if manager.cell.mode != MODE_SHADOW:
                        ready_ns = bandwidth_reserve(
                            &manager.cell.bandwidth[direction], amounts[direction], now_ns)
                        if ready_ns > latest_ns:
                            latest_ns = ready_ns
                            slowest = manager
                            slow = direction
            manager = manager.parent
        if slowest is None:
            return ADMITTED
        return Admission(
            False, slowest.scope, ("bandwidth_in", "bandwidth_out")[slow], slowest.name,
            (latest_ns - now_ns) / 1e9, True)

    def connection_closed(self):
        """Gives the slots back.

        Raises:
            RuntimeError: nothing is open.
        """
        cdef RateLimitManager manager = self.parent
        if not gauge_give_above(&self.cell.open):
            raise RuntimeError(f"RateLimitManager {self.name!r}: connection_closed, but nothing is open")
        while manager is not None:
            gauge_give(&manager.cell.open)
            manager = manager.parent

    # ---- a restart

    def snapshot(self):
        """What the rate, the window and the bandwidths remember, without the parents. Open connections
        are not part of it: they end with the process.

        Returns:
            bytes: for ``restore``, also in another process or after a reboot.
        """
        cdef uint64_t now_ns = self.now_ns()
        cdef uint64_t next_ns = word_read(&self.cell.next_ns)
        tokens = 0.0
        if self.cell.interval_ns and next_ns > now_ns:
            tokens = <double>(next_ns - now_ns) / <double>self.cell.interval_ns
        bandwidth = [
            bandwidth_debt_ns(&self.cell.bandwidth[i], now_ns) if self.cell.bandwidth[i].rate else 0
            for i in range(2)
        ]
        return pack(LimitState(tokens, tuple(self._ages(now_ns)), tuple(bandwidth)))

    def _ages(self, uint64_t now_ns):
        cdef window_t *window = self.cell.window
        cdef uint64_t stamp
        cdef uint64_t opened_ns
        cdef uint64_t i
        if window == NULL:
            return []
        ages = []
        for i in range(window.max):
            stamp = word_read(&window.stamps[i])
            opened_ns = stamp >> STAMP_SHIFT
            if opened_ns and not stamp & STRUCK_OUT and opened_ns + window.period_ns > now_ns:
                ages.append(now_ns - opened_ns if now_ns > opened_ns else 0)
        return sorted(ages, reverse=True)

    def restore(self, data):
        """Goes on from a snapshot, with the time that has passed since, and never with more than that.
        Limits that have changed in between take over what they can: opens and bytes that were owed are
        still owed.

        Raises:
            TypeError, ValueError: ``data`` is not a snapshot, or a damaged one; nothing has changed.
            RuntimeError: connections were opened already.
        """
        cdef uint64_t now_ns = self.now_ns()
        cdef uint64_t elapsed
        cdef int i
        state, passed = unpack(data)
        if counter_read(&self.cell.admitted) or counter_read(&self.cell.bytes_in):
            raise RuntimeError("restore: comes before the first connection")
        elapsed = <uint64_t>min(passed, 2**62)
        if self.cell.interval_ns:
            owed = min(round(state.tokens * self.cell.interval_ns), self.cell.burst_ns)
            if owed > elapsed:
                word_write(&self.cell.next_ns, now_ns + <uint64_t>(owed - elapsed))
        for i in range(2):
            if self.cell.bandwidth[i].rate and state.bandwidth[i] > elapsed:
                bandwidth_owe(
                    &self.cell.bandwidth[i], <uint64_t>min(state.bandwidth[i] - elapsed, 10**12), now_ns)
        self._restore_window(state.ages, elapsed, now_ns)

    def _restore_window(self, ages, uint64_t elapsed, uint64_t now_ns):
        """The youngest opens that still count, oldest first, as if they had been stamped here."""
        cdef window_t *window = self.cell.window
        cdef uint64_t opened_ns
        cdef uint64_t age
        cdef uint64_t place = 0
        if window == NULL:
            return
        counting = sorted((age + elapsed for age in ages if age + elapsed < window.period_ns), reverse=True)
        for age in counting[-<int64_t>window.max:]:
            opened_ns = now_ns - age if now_ns > age else 1     # before the clock began: counts for longer
            word_write(&window.stamps[place], window_stamp(window, place, opened_ns))
            place += 1
        word_write(&window.head, place)

    def __repr__(self):
        return f"<RateLimitManager {self.name!r} open={self.open}>"


# ---- checks --------------------------------------------------------------------------------------

cdef set_rate(bandwidth_t *bandwidth, object rate):
    if rate is not None:
        bandwidth.rate = <uint64_t>round(rate)
        bandwidth.burst = max(<uint64_t>1, bandwidth.rate // 8)


cdef uint64_t check_amount(str name, object amount) except? 0:
    if not isinstance(amount, int) or isinstance(amount, bool):
        raise TypeError(f"{name}: a whole number of bytes, not {amount!r}")
    if not 0 <= amount <= AMOUNT_MAX:
        raise ValueError(f"{name}: 0 to {AMOUNT_MAX}, not {amount}")
    return <uint64_t>amount


def check_parent(parent, clock):
    """Raises TypeError or ValueError when it cannot be the scope around another one."""
    if clock is not None and not isinstance(clock, ManualClock):
        raise TypeError(f"clock: a ManualClock or None, not {clock!r}")
    if parent is None:
        return
    if not isinstance(parent, RateLimitManager):
        raise TypeError(f"parent: a RateLimitManager or None, not {parent!r}")
    if (<RateLimitManager>parent).name is None:
        raise ValueError("parent: a RateLimitManager whose __init__ was not called")
    if (<RateLimitManager>parent).clock is not clock:
        raise ValueError("parent: all scopes of a chain have the same clock")
    depth = 1
    while parent is not None:
        depth += 1
        parent = (<RateLimitManager>parent).parent
    if depth > DEPTH_MAX:
        raise ValueError(f"parent: at most {DEPTH_MAX} scopes in a chain")
