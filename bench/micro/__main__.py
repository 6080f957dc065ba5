"""`python -m bench.micro`: pyperf times single parts of the core; its own options work here.

    python -m bench.micro --fast -o micro.json
    python -m pyperf compare_to before.json micro.json

What workers do is timed in loops of C without the interpreter's lock (`_loops.pyx`), so a number is what a
worker pays. The row "from Python" calls the same through its objects.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyperf

from lbctl import config

from .parts import CLIENTS, ROOMY, configuration, nested, rows


def in_c(count: int, make: Callable[[], Any]) -> float:
    """Seconds for so many units."""
    nanoseconds: int = make().run(count)
    return nanoseconds / 1e9


def from_python(count: int) -> float:
    """The same events from a Python thread."""
    manager = nested(3, **ROOMY)
    started = time.perf_counter()
    for _ in range(count):
        manager.connection_opened()
        manager.connection_closed()
    return time.perf_counter() - started


def main() -> None:
    """Times everything; pyperf runs this file again in processes of its own."""
    runner = pyperf.Runner(program_args=("-m", "bench.micro"))
    for name, make in rows().items():
        runner.bench_time_func(name, in_c, make)
    runner.bench_time_func("limiter: three scopes, cap, from Python", from_python)
    with tempfile.TemporaryDirectory(prefix="micro-") as folder:
        path = configuration(Path(folder))
        runner.bench_func(f"configuration of {CLIENTS} clients", config.load, path)


if __name__ == "__main__":
    main()
