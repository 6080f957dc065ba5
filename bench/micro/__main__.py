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

from .compiled import loops
from .parts import RATED, ROOMY, WINDOWED, application, full, nested

CLIENTS = 2000  # in the configuration that is loaded


def configuration(folder: Path, clients: int = CLIENTS) -> Path:
    """A file with so many clients: each has a certificate, an application and one of ten limits."""
    lines = [
        "version: 1",
        "tls: {cert: server.pem, key: server.key, client_ca: ca.pem}",
        "limits:",
        *(f"  class-{number}: {{concurrent: {number + 1}}}" for number in range(10)),
        "apps:",
        "  orders:",
        "    listen: 127.0.0.1:7306",
        "    upstreams: [{address: 127.0.0.1:5432}, {address: 127.0.0.1:5433}]",
        "clients:",
    ]
    for number in range(clients):
        lines += [
            f"  client-{number}:",
            f'    serials: ["{10**30 + number:X}"]',
            "    apps: [orders]",
            f"    limits: {{orders: class-{number % 10}}}",
        ]
    path = folder / "lb.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def rows() -> dict[str, Callable[[], Any]]:
    """What is timed in C: its name, and what makes the loop."""
    native = loops()
    return {
        "limiter: cap": lambda: native.Limits(nested(1, **ROOMY)),
        "limiter: cap and rate": lambda: native.Limits(nested(1, **RATED)),
        "limiter: cap, rate and window": lambda: native.Limits(nested(1, **WINDOWED)),
        "limiter: three scopes, cap": lambda: native.Limits(nested(3, **ROOMY)),
        "limiter: three scopes, cap and rate": lambda: native.Limits(nested(3, **RATED)),
        "limiter: refused by the cap": lambda: native.Refusals(full()),
        **{f"pick: {n} upstreams": lambda n=n: native.Picks(application(n)) for n in (2, 16, 256)},
        **{
            f"pick: {n} upstreams, affinity": lambda n=n: native.Picks(application(n), affinity=True)
            for n in (2, 16, 256)
        },
        "verdict: hit": lambda: native.Verdicts(hit=True),
        "verdict: miss": lambda: native.Verdicts(hit=False),
        "timer: arm and disarm": lambda: native.Timers("arm"),
        "timer: move": lambda: native.Timers("move"),
        "timer: arm and expire": lambda: native.Timers("expire"),
    }


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
