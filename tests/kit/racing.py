"""Threads that start together."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def at_once(threads: int, work: Callable[[], T]) -> list[T]:
    """Runs `work` on that many threads, none before all are there; their results."""
    gate = threading.Barrier(threads)

    def run() -> T:
        gate.wait(timeout=10)
        return work()

    with ThreadPoolExecutor(threads) as pool:
        return [job.result(timeout=40) for job in [pool.submit(run) for _ in range(threads)]]
