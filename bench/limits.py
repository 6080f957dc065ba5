"""What limits cost: nanoseconds for one connection's open and close.

    python -m bench.limits

The loop runs in C without the interpreter, as in a worker, on one thread, so nobody competes for the
counters; the last rows call the same from Python.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from lbcore import RateLimitManager
from lbcore.limits import pair_ns

ROUNDS = 9
PAIRS = 60_000  # within one window of 65 536
ROOMY: dict[str, Any] = {"max_open": 1_000_000}


def nested(depth: int, **limits: Any) -> RateLimitManager:
    """So many scopes, one in the other."""
    manager = RateLimitManager("outer", scope="global", **limits)
    for number in range(depth - 1):
        manager = RateLimitManager(f"inner {number}", parent=manager, **limits)
    return manager


def from_python(manager: RateLimitManager) -> float:
    """The same events from a Python thread."""
    count = PAIRS // 10
    started = time.perf_counter_ns()
    for _ in range(count):
        manager.connection_opened()
        manager.connection_closed()
    return (time.perf_counter_ns() - started) / count


def row(name: str, measure: Callable[[], float]) -> str:
    """Median and spread over the rounds."""
    measure()
    times = [measure() for _ in range(ROUNDS)]
    return f"{name:<46}{statistics.median(times):8.1f} ns   ({min(times):.1f} - {max(times):.1f})"


def main() -> None:
    """Prints the table."""
    rate: dict[str, Any] = {"rate": 1e6, "burst": 10**7}
    in_c: list[tuple[str, RateLimitManager]] = [
        ("concurrent cap", nested(1, **ROOMY)),
        ("concurrent cap and rate", nested(1, **ROOMY, **rate)),
        ("concurrent cap, rate and window", nested(1, **ROOMY, **rate, window=(65536, 0.001))),
        ("three scopes, cap", nested(3, **ROOMY)),
        ("three scopes, cap and rate", nested(3, **ROOMY, **rate)),
    ]
    for name, manager in in_c:
        print(row(name, lambda one=manager: pair_ns(one, PAIRS)))
    print(row("from Python: cap and rate", lambda: from_python(nested(1, **ROOMY, **rate))))
    print(row("from Python: three scopes, cap and rate", lambda: from_python(nested(3, **ROOMY, **rate))))


if __name__ == "__main__":
    main()
