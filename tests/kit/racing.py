"""Threads that start together."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

T = TypeVar("T")


def at_once(threads: int, work: Callable[[], T]) -> list[T]:
    """Runs `work` on that many threads, none before all are there; their results."""
    gate = threading.Barrier(threads)

    def run() -> T:
        gate.wait(timeout=10)
        return work()

    with ThreadPoolExecutor(threads) as pool:
        return [job.result(timeout=40) for job in [pool.submit(run) for _ in range(threads)]]


def race(probes: ModuleType, threads: int, work: Callable[[Any], T]) -> list[T]:
    """The same for loops of the probes, which meet at a gate after they have let go of the interpreter's
    lock: only then do they really run at once."""
    gate = probes.Gate(threads)
    return at_once(threads, lambda: work(gate))
