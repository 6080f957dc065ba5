"""A clock for tests and simulations."""

from __future__ import annotations

_START_NS = 10**15  # so that everything may have happened before the test began


class ManualClock:
    """Time that moves only when it is told to, for RateLimitManager and Simulation.

    Thread-safety: one thread moves it; any thread may read it.

    Args:
        start: seconds that ``now`` begins with.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    __slots__ = ("_begin_ns", "_ns")

    def __init__(self, start: float = 0.0) -> None:
        self._begin_ns = _START_NS
        self._ns = _START_NS + _nanoseconds("start", start)

    @property
    def now(self) -> float:
        """Seconds."""
        return (self._ns - self._begin_ns) / 1e9

    @property
    def ns(self) -> int:
        """What the limits see: nanoseconds, never near zero."""
        return self._ns

    def advance(self, seconds: float) -> None:
        """Moves on; never back.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        self._ns += _nanoseconds("seconds", seconds)

    def __repr__(self) -> str:
        return f"ManualClock({self.now!r})"


def _nanoseconds(name: str, seconds: float) -> int:
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(f"{name}: seconds, not {seconds!r}")
    if not 0 <= seconds <= 1e9:
        raise ValueError(f"{name}: 0 to 1e9 seconds, not {seconds!r}")
    return round(seconds * 1e9)
