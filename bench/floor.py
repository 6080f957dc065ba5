"""How near plain TCP is to the floor: to a program that makes the same system calls and does nothing else.

    python -m bench.floor [--rounds N] [--quick]

That program (native/floor.pyx) has no TLS, limits, records, timers or health. It runs in turns with this
project and with the peers that do the plain works best, as in `python -m bench`. What it costs is the
kernel's; what others cost beyond is theirs to save.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from . import certificates, network
from .compare import Bench, Case
from .ending import run
from .place import installed, place, require_programs, usable_cpus
from .program import positive, tell
from .proxies import HAProxy, Job, LoadBalancer, Nginx, Proxy, Version
from .report import Result, machine, significant
from .works import QUICK, WORKS, Scale

WORKS_OF_IT = tuple(work for work in WORKS if work.key in ("tcp-new", "tcp-echo", "tcp-down", "tcp-up"))
_FORWARD = """
import socket
from bench.native.floor import forward

with socket.create_server(("127.0.0.1", {port}), backlog=4096) as listener:
    listener.setblocking(False)
    forward(listener.fileno(), {upstreams[0]}, {upstreams[1]})
"""


class Floor(Proxy):
    """The program, as a proxy of the bench; its script is its configuration."""

    name = "floor"
    config_name = "floor.py"
    environment = MappingProxyType({"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))})
    lacks = MappingProxyType({"tls": "it has none"})
    has_tls = False

    def version(self) -> Version:
        return Version("floor", "none")

    def command(self, config: Path, job: Job) -> list[str]:
        return [sys.executable, str(config)]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        return _FORWARD.format(port=plain_port, upstreams=job.upstream_ports)


def row(result: Result, names: Sequence[str]) -> str:
    """One work: the floor's cost, and of each other one its cost and the ratio."""
    cells = [f"{result.work.title} ({result.work.unit})", significant(result.spread(Floor.name).median)]
    for name in names:
        ratio = result.ratio(name, Floor.name).median
        cells.append(f"{significant(result.spread(name).median)} ({ratio:.2f})")
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a Markdown table; 0: measured, 1: something failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5, help="measurements of each work and proxy")
    parser.add_argument("--quick", action="store_true", help="shorter ones")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else Scale()
    return tell("bench.floor", lambda: measure(options.rounds, scale))


def measure(rounds: int, scale: Scale) -> None:
    """All works, and a row for each as soon as it has been measured."""
    usable = usable_cpus()
    require_programs()
    network.enter_if_allowed()
    others, _ = installed([LoadBalancer(), Nginx(), HAProxy()])
    cases = [Case(proxy.name, proxy) for proxy in (Floor(), *others)]
    names = [proxy.name for proxy in others]
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    print(f"\n| plain TCP, CPU of the proxy | floor | {' | '.join(names)} |")
    print("| --- | --: |" + " --: |" * len(names))
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        bench = Bench(folder, scale, rounds, rounds * len(WORKS_OF_IT) * len(cases))
        with place(certificates.make(folder), usable, 1) as (job, cpus):
            for work in WORKS_OF_IT:
                print(row(bench.compare(work, cases, job, cpus), names), flush=True)


if __name__ == "__main__":
    run(main)
