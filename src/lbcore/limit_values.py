"""The values of limits: what they may be, a named set of them, and the answer to an attempt.

Pure Python, immutable: safe to share between threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from lbcore.clock import ManualClock
    from lbcore.limits import RateLimitManager

OPEN_MAX = 2**31 - 1
RATE_MIN, RATE_MAX = 1e-6, 1e6  # opens per second
BURST_MAX = 2**31 - 1
WINDOW_MAX = 65536  # 8 bytes each
BANDWIDTH_MAX = 1e10  # bytes per second
SECONDS_MIN, SECONDS_MAX = 0.001, 1e9
DEPTH_MAX = 4  # a limiter and the scopes around it

OnExceed = Literal["refuse", "delay", "shadow"]
Scope = Literal["client", "application", "global"]
Limit = Literal["concurrent", "rate", "window", "bandwidth_in", "bandwidth_out"]

MODES: tuple[OnExceed, ...] = ("refuse", "delay", "shadow")
SCOPES: tuple[Scope, ...] = ("client", "application", "global")


@dataclass(frozen=True, kw_only=True)
class LimitClass:
    """A named set of limits to build managers from. What each means is told by RateLimitManager.

    Attributes:
        max_open: connections open at once, or None.
        rate: connections opened per second (token bucket), or None.
        burst: opens that may come at once; default: one second's worth, at least 1.
        window: (opens, seconds): never more opens than that in any period of that length; or None.
        bandwidth_in: bytes per second from clients, or None.
        bandwidth_out: bytes per second to clients, or None.
        max_lifetime: seconds a connection may last, or None.
        on_exceed: ``"refuse"``, ``"delay"`` or ``"shadow"``.
        max_wait: seconds a connection is delayed at most; required with ``"delay"``.
        replace_oldest: end the oldest connection instead of refusing a new one; needs ``max_open``.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    max_open: int | None = None
    rate: float | None = None
    burst: int | None = None
    window: tuple[int, float] | None = None
    bandwidth_in: float | None = None
    bandwidth_out: float | None = None
    max_lifetime: float | None = None
    on_exceed: OnExceed = "refuse"
    max_wait: float | None = None
    replace_oldest: bool = False

    def __post_init__(self) -> None:
        _check_whole("max_open", self.max_open, OPEN_MAX)
        _check_number("rate", self.rate, RATE_MIN, RATE_MAX, "connections per second")
        _check_burst(self.burst, self.rate)
        if self.window is not None:
            object.__setattr__(self, "window", _checked_window(self.window))
        for name in ("bandwidth_in", "bandwidth_out"):
            _check_number(name, getattr(self, name), 1, BANDWIDTH_MAX, "bytes per second")
        for name in ("max_lifetime", "max_wait"):
            _check_number(name, getattr(self, name), SECONDS_MIN, SECONDS_MAX, "seconds")
        if not isinstance(self.on_exceed, str) or self.on_exceed not in MODES:
            raise ValueError(f"on_exceed: one of {', '.join(MODES)}, not {self.on_exceed!r}")
        if self.on_exceed == "delay" and self.max_wait is None:
            raise ValueError("max_wait: needed with on_exceed='delay', or a connection could wait for ever")
        if self.on_exceed != "delay" and self.max_wait is not None:
            raise ValueError("max_wait: makes sense only with on_exceed='delay'")
        if not isinstance(self.replace_oldest, bool):
            raise TypeError(f"replace_oldest: True or False, not {self.replace_oldest!r}")
        if self.replace_oldest and (self.max_open is None or self.on_exceed == "shadow"):
            raise ValueError("replace_oldest: needs max_open, and a shadow limit ends nothing")

    def manager(
        self,
        name: str,
        *,
        scope: Scope = "client",
        parent: RateLimitManager | None = None,
        clock: ManualClock | None = None,
    ) -> RateLimitManager:
        """A new RateLimitManager with these limits.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        from lbcore.limits import RateLimitManager  # it is built from this module

        return RateLimitManager(
            name,
            max_open=self.max_open,
            rate=self.rate,
            burst=self.burst,
            window=self.window,
            bandwidth_in=self.bandwidth_in,
            bandwidth_out=self.bandwidth_out,
            max_lifetime=self.max_lifetime,
            on_exceed=self.on_exceed,
            max_wait=self.max_wait,
            replace_oldest=self.replace_oldest,
            scope=scope,
            parent=parent,
            clock=clock,
        )

    @property
    def refill(self) -> float:
        """Seconds after which a manager nobody uses has forgotten what it admitted."""
        seconds = (self.burst or max(1.0, self.rate)) / self.rate if self.rate else 0.0
        return max(seconds, self.window[1] if self.window else 0.0)


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to an event. True when it may go on.

    Attributes:
        allowed: whether it may; also true when only a shadow limit was hit.
        scope: the scope that refused (``client``, ``application``, ``global``), or None.
        limit: the limit that refused (``concurrent``, ``rate``, ``window``, ``bandwidth_in``,
            ``bandwidth_out``), or None.
        name: the name of the RateLimitManager that refused, or None.
        wait: seconds until another attempt can succeed, 0 where waiting alone does not help.
        delay: the limit that refused asks for the connection to be held back and tried again, for
            at most its ``max_wait``.
        shadow: the limit a shadow scope would have refused with, or None.
    """

    allowed: bool
    scope: Scope | None = None
    limit: Limit | None = None
    name: str | None = None
    wait: float = 0.0
    delay: bool = False
    shadow: Limit | None = None

    def __bool__(self) -> bool:
        return self.allowed


# ---- checks --------------------------------------------------------------------------------------


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _check_whole(name: str, value: Any, most: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: a whole number or None, not {value!r}")
    if not 1 <= value <= most:
        raise ValueError(f"{name}: 1 to {most}, not {value}")


def _check_number(name: str, value: Any, least: float, most: float, unit: str) -> None:
    if value is None:
        return
    if not _is_number(value):
        raise TypeError(f"{name}: {unit} or None, not {value!r}")
    if not least <= value <= most:
        raise ValueError(f"{name}: {least:g} to {most:g} {unit}, not {value}")


def _check_burst(burst: Any, rate: float | None) -> None:
    if burst is None:
        return
    if rate is None:
        raise ValueError("burst: makes sense only with rate")
    _check_whole("burst", burst, BURST_MAX)
    if burst / rate > SECONDS_MAX:
        raise ValueError(f"burst: refilled within {SECONDS_MAX:g} seconds, not {burst}")


def _checked_window(window: Any) -> tuple[int, float]:
    if not isinstance(window, (tuple, list)) or len(window) != 2:
        raise TypeError(f"window: (opens, seconds) or None, not {window!r}")
    opens, seconds = window
    if opens is None or seconds is None:
        raise TypeError(f"window: (opens, seconds) or None, not {window!r}")
    _check_whole("window", opens, WINDOW_MAX)
    _check_number("window", seconds, SECONDS_MIN, SECONDS_MAX, "seconds")
    return opens, float(seconds)
