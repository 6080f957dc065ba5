"""RateLimitManager: limits of one scope, shared by workers and Python threads."""

from libc.stdint cimport uint64_t

from lbcore.parts.cells cimport limiter_new, limiter_unref
from lbcore.parts.limiter cimport (
    LIMIT_OPEN,
    limiter_open,
    refusal_t,
)
from lbcore.structs cimport SCOPE_APP, SCOPE_CLIENT, SCOPE_GLOBAL
from lbcore.sys.atomics cimport counter_read, gauge_give_above, gauge_read
from lbcore.sys.linux cimport monotonic_ns

cdef dict SCOPE_NAMES = {SCOPE_CLIENT: "client", SCOPE_APP: "application", SCOPE_GLOBAL: "global"}

OPEN_MAX = 2**31 - 1
RATE_MAX = 1e6
BURST_MAX = 2**31 - 1


def scope_name(int scope):
    """The word for a scope in verdicts and logs, or None."""
    return SCOPE_NAMES.get(scope)


def check_limits(max_open, rate, burst):
    """Raises TypeError or ValueError, naming the argument, when a limit makes no sense."""
    if max_open is not None:
        if not isinstance(max_open, int) or isinstance(max_open, bool):
            raise TypeError(f"max_open: a whole number of connections or None, not {max_open!r}")
        if not 1 <= max_open <= OPEN_MAX:
            raise ValueError(f"max_open: 1 to {OPEN_MAX}, not {max_open}")
    if rate is not None:
        if not isinstance(rate, (int, float)) or isinstance(rate, bool):
            raise TypeError(f"rate: connections per second or None, not {rate!r}")
        if not 1e-6 <= rate <= RATE_MAX:
            raise ValueError(f"rate: 0.000001 to {RATE_MAX:.0f} a second, not {rate}")
    if burst is not None:
        if rate is None:
            raise ValueError("burst: makes sense only with rate")
        if not isinstance(burst, int) or isinstance(burst, bool):
            raise TypeError(f"burst: a whole number of connections or None, not {burst!r}")
        if not 1 <= burst <= BURST_MAX or burst / rate > 1e9:
            raise ValueError(f"burst: 1 to {BURST_MAX}, and refilled within 1e9 seconds, not {burst}")


class LimitClass:
    """A named set of limits to build managers from; immutable.

    Args:
        max_open: connections open at once, or None.
        rate: connections opened per second (token bucket), or None.
        burst: opens that may come at once; default: one second's worth, at least 1.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    __slots__ = ("_burst", "_max_open", "_rate")

    def __init__(self, *, max_open=None, rate=None, burst=None):
        check_limits(max_open, rate, burst)
        self._max_open = max_open
        self._rate = rate
        self._burst = burst

    @property
    def max_open(self):
        return self._max_open

    @property
    def rate(self):
        return self._rate

    @property
    def burst(self):
        return self._burst

    def __repr__(self):
        return f"LimitClass(max_open={self._max_open}, rate={self._rate}, burst={self._burst})"


class Admission:
    """The answer to ``connection_opened``: true when admitted.

    Attributes:
        allowed: whether the connection may go on.
        scope: the scope that refused (``client``, ``application``, ``global``), or None.
        limit: the limit that refused (``concurrent``, ``rate``), or None.
        wait: seconds until an attempt would pass the rate, 0 where waiting alone does not help.
    """

    __slots__ = ("allowed", "limit", "scope", "wait")

    def __init__(self, allowed, scope=None, limit=None, wait=0.0):
        self.allowed = allowed
        self.scope = scope
        self.limit = limit
        self.wait = wait

    def __bool__(self):
        return self.allowed

    def __repr__(self):
        if self.allowed:
            return "Admission(allowed)"
        return f"Admission(refused by {self.scope} {self.limit}, wait={self.wait:.3f})"


cdef object ADMITTED = Admission(True)


cdef class RateLimitManager:
    """Counts the connections of one scope and says when one is too many.

    The same object may be used by any number of threads, connections and applications: those that share
    it share its limits. Every method is atomic and takes no lock.

    Args:
        name: for logs and errors.
        max_open: connections open at once, or None for no cap.
        rate: connections opened per second, or None for no rate; a token bucket (GCRA) on the monotonic
            clock.
        burst: opens that may come at once; default: one second's worth, at least 1.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __cinit__(self, *args, **kwargs):
        self.cell = limiter_new()
        if self.cell == NULL:
            raise MemoryError

    def __init__(self, str name not None, *, max_open=None, rate=None, burst=None):
        check_limits(max_open, rate, burst)
        self.name = name
        self.cell.scope = SCOPE_CLIENT
        self.cell.open_max = max_open or 0
        if rate is not None:
            self.cell.interval_ns = <uint64_t>round(1e9 / rate)
            self.cell.burst_ns = self.cell.interval_ns * <uint64_t>(burst or max(1, int(rate)))

    def __dealloc__(self):
        limiter_unref(self.cell)

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
        """Connections refused so far."""
        return counter_read(&self.cell.refused)

    def connection_opened(self):
        """Takes a slot and a token, or nothing.

        Returns:
            Admission: true when admitted; then ``connection_closed`` must follow exactly once.
        """
        cdef refusal_t refusal
        if limiter_open(self.cell, monotonic_ns(), &refusal):
            return ADMITTED
        return Admission(
            False,
            SCOPE_NAMES.get(refusal.limiter.scope),
            "concurrent" if refusal.limit == LIMIT_OPEN else "rate",
            refusal.wait_ns / 1e9,
        )

    def connection_closed(self):
        """Gives the slot back.

        Raises:
            RuntimeError: nothing is open.
        """
        if not gauge_give_above(&self.cell.open):
            raise RuntimeError(f"RateLimitManager {self.name!r}: connection_closed, but nothing is open")

    def __repr__(self):
        return f"<RateLimitManager {self.name!r} open={self.open}>"


cdef RateLimitManager limiter_of(str name, scope_t scope, object max_open, object rate, object burst):
    manager = RateLimitManager(name, max_open=max_open, rate=rate, burst=burst)
    manager.cell.scope = scope
    return manager
