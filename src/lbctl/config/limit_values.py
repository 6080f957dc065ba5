"""The written forms of windows and bandwidths; the other values are in `values`.

Every `parse_*` raises `ValueError` with a message that says how to mend the value; every `format_*`
writes what its `parse_*` reads back as the same value. No state: safe from any thread.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from lbctl.config.values import DURATION_MAX, DURATION_MIN, format_duration, parse_duration

WINDOW_PATTERN = r"^[0-9]+/[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
BANDWIDTH_PATTERN = r"^[0-9]+(\.[0-9]+)?((k|M|G|Ki|Mi|Gi)?B|(k|M|G)bit)/s$"

WINDOW_MAX = 65536  # connections; the limiter remembers when each of them came
BANDWIDTH_MIN = 1.0  # bytes per second
BANDWIDTH_MAX = 1e10  # bytes per second: 10 GB/s

_BYTES = {
    "B/s": 1,
    "kB/s": 10**3,
    "MB/s": 10**6,
    "GB/s": 10**9,
    "KiB/s": 2**10,
    "MiB/s": 2**20,
    "GiB/s": 2**30,
    "kbit/s": 10**3 // 8,
    "Mbit/s": 10**6 // 8,
    "Gbit/s": 10**9 // 8,
}
_WRITTEN = tuple(unit for unit in _BYTES if "bit" not in unit)
_EXPECTED = f"expected a bandwidth with a unit ({', '.join(_BYTES)})"
_DIGITS_MAX = 30  # enough for any value that passes, and Decimal stays cheap
_BANDWIDTH = re.compile(r"([0-9]+(?:\.[0-9]+)?)([A-Za-z]+(?:/s)?)")
_WINDOW = re.compile(r"([0-9]+)/(.+)")


class Window(NamedTuple):
    """At most so many opens in any period of that length.

    Attributes:
        opens: connections.
        period: seconds.
    """

    opens: int
    period: float


def parse_window(text: str) -> Window:
    """Opens and seconds, of "20/10s"."""
    match = _WINDOW.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if match is None:
        raise ValueError("expected a number of connections and a period such as 20/10s")
    if match[2] in ("s", "m", "h", "d"):
        raise ValueError(f"the period has no number; write {match[1]}/1{match[2]}")
    return check_window(int(match[1]), parse_duration(match[2]))


def check_window(opens: int, period: float) -> Window:
    """The window itself when a limiter can hold it."""
    if not 1 <= opens <= WINDOW_MAX:
        raise ValueError(f"a window holds 1 to {WINDOW_MAX} connections; for more, use rate and burst")
    if not DURATION_MIN <= period <= DURATION_MAX:
        raise ValueError("the period of a window must be at least 1ms and at most ten years")
    return Window(opens, period)


def format_window(window: Window) -> str:
    """A spelling that `parse_window` reads back exactly."""
    return f"{window.opens}/{format_duration(window.period)}"


def parse_bandwidth(text: str) -> float:
    """Bytes per second, of "500kB/s", "1MiB/s", "10Mbit/s"."""
    match = _BANDWIDTH.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if match is None:
        raise ValueError(f"{_EXPECTED} such as 1MiB/s")
    if match[2] not in _BYTES:
        raise ValueError(f"{_EXPECTED}{_meant(match[1], match[2])}")
    return check_bandwidth(float(Decimal(match[1]) * _BYTES[match[2]]))


def _meant(number: str, unit: str) -> str:
    """A hint for a unit in the wrong case or without "/s"; a small b may mean bits."""
    unit = unit if unit.endswith("/s") else unit + "/s"
    near = [known for known in _BYTES if known.casefold() == unit.casefold()]
    if unit.endswith("b/s") and near:
        bits = near[0].replace("iB/s", "B/s").replace("B/s", "bit/s")
        if bits in _BYTES:
            return f"; write {number}{near[0]} for bytes or {number}{bits} for bits"
    return f"; did you mean {number}{near[0]}?" if near else " such as 1MiB/s"


def check_bandwidth(bytes_per_second: float) -> float:
    """The bandwidth itself when a limiter can hold it."""
    if not bytes_per_second > 0:
        raise ValueError("a bandwidth must be above 0; to refuse a client, leave the app out of its 'apps'")
    if not BANDWIDTH_MIN <= bytes_per_second <= BANDWIDTH_MAX:
        raise ValueError("a bandwidth must be from 1B/s to 10GB/s")
    return bytes_per_second


def format_bandwidth(bytes_per_second: float) -> str:
    """The spelling with the smallest whole number that `parse_bandwidth` reads back exactly."""
    exact = Decimal(repr(bytes_per_second))
    counts = {unit: exact / _BYTES[unit] for unit in _WRITTEN}
    whole = {unit: int(count) for unit, count in counts.items() if count == count.to_integral_value()}
    if whole:
        unit = min(whole, key=lambda unit: whole[unit])
        return f"{whole[unit]}{unit}"
    return f"{exact:f}B/s"
