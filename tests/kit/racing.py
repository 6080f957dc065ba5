"""Threads that start together, and workers that see at once what was done one after the other."""

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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


@contextlib.contextmanager
def workers_held_back() -> Iterator[None]:
    """What this thread does in the block without waiting comes to the workers in one wake-up.

    They share its CPU for so long, in a class of scheduling that does not interrupt others when it is woken
    (sched(7), SCHED_BATCH).
    """
    allowed = os.sched_getaffinity(0)
    here = {min(allowed)}
    workers = [task for task in _threads() if re.fullmatch(r"lbcore-\d+", _name(task))]
    os.sched_setaffinity(0, here)
    for worker in workers:
        os.sched_setaffinity(worker, here)
        os.sched_setscheduler(worker, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        for worker in workers:
            os.sched_setscheduler(worker, os.SCHED_OTHER, os.sched_param(0))
            os.sched_setaffinity(worker, allowed)
        os.sched_setaffinity(0, allowed)


def _threads() -> list[int]:
    """Of this process, native ones too."""
    return [int(entry.name) for entry in Path("/proc/self/task").iterdir()]


def _name(thread: int) -> str:
    return Path(f"/proc/self/task/{thread}/comm").read_text().strip()
