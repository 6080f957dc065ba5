"""What must be left when a test is over: nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from kit.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import lbcore

#: Longer than a socket lingers in close, with room for a busy machine.
SETTLE = 5.0
#: Seconds in which workers that hold nothing are watched.
_LOOK = 0.012
#: How often one may wake up in that time: a late answer, a look at the clock. A loop comes to thousands.
_WAKEUPS_MAX = 6


def descriptors(process: int | str = "self") -> int:
    """How many descriptors a process has open, by its id; by default this one."""
    return sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())


def core_threads() -> list[str]:
    """Names of the threads of lbcore that run in this process, native ones included."""
    names = {thread.name for thread in threading.enumerate()}
    for task in Path("/proc/self/task").iterdir():
        try:
            names.add((task / "comm").read_text().strip())
        except OSError:
            continue  # it has just ended
    return sorted(name for name in names if name.startswith("lbcore"))


def held(
    engine: lbcore.Engine,
    applications: Iterable[lbcore.Application],
    limiters: Iterable[lbcore.RateLimitManager] = (),
) -> dict[str, int]:
    """Every count that is not zero, by name: empty when the engine holds nothing."""
    stats = engine.stats()
    counts = {"open": stats["open"], "unauthenticated": stats["unauthenticated"]}
    for number, worker in enumerate(stats["workers"]):
        counts[f"worker {number} open"] = worker["open"]
    limiters = [*limiters, *(application.limits for application in applications if application.limits)]
    for application in applications:
        counts[f"app {application.name} open"] = application.open_connections
        for server in application.upstreams:
            counts[f"upstream {server.address} in_flight"] = server.in_flight
    for limiter in limiters:
        counts[f"limiter {limiter.name} open"] = limiter.open
        counts[f"limiter {limiter.name} waiting"] = limiter.waiting
    return {name: count for name, count in counts.items() if count != 0}


def wait_for_descriptors(baseline: int) -> None:
    """Fails unless the process comes back to `baseline` descriptors."""
    wait_until(
        lambda: descriptors() <= baseline,
        f"back to {baseline} descriptors, there are {descriptors()}",
        timeout=SETTLE,
    )


def wait_for_threads() -> None:
    """Fails unless every thread of lbcore ends."""
    wait_until(lambda: not core_threads(), f"threads gone, there are {core_threads()}", timeout=SETTLE)


def check_rest(engines: Sequence[lbcore.Engine]) -> None:
    """Fails unless the workers of engines that hold nothing sleep."""
    before = _wakeups(engines)
    time.sleep(_LOOK)  # the time in which nothing happens
    woken = _wakeups(engines) - before
    restless = {name: count for name, count in woken.items() if count > _WAKEUPS_MAX}
    assert not restless, f"woken although they hold nothing, in {_LOOK * 1000:g} ms: {restless}"


def _wakeups(engines: Sequence[lbcore.Engine]) -> Counter[str]:
    """How often each worker has been woken so far."""
    return Counter(
        {
            f"engine {which} worker {number}": worker["wakeups"]
            for which, engine in enumerate(engines)
            for number, worker in enumerate(engine.stats()["workers"])
        }
    )
