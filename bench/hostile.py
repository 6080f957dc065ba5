"""What others can do to a good client: its times alone, and beside those who mean no good.

    python -m bench.hostile [--rounds N] [--engine openssl]

One balancer with one worker on one CPU; the good client, the hostile ones and the upstream on another.
Quiet and hostile rounds alternate. A hostile client that works hard also takes the good client's CPU, so
what floods is made beforehand.

    strangers   200 silent sockets and 200 that have sent garbage inside a record, held open meanwhile
    rogues      connections with certificates of another CA, one after the other
    key updates 4 000 of them in one piece that all ask for an answer, ten times in half a second
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from itertools import repeat
from pathlib import Path

from kit.clients import TlsClient, client_context, connect, outcome, plain
from kit.daemon import Daemon, configuration
from kit.pki import Authority, Pki
from kit.records import RecordClient
from kit.upstreams import Upstream

from . import network
from .cpu import memory_kib
from .ending import run
from .place import usable_cpus
from .program import positive, tell
from .report import machine, significant

SAMPLES = 200
STRANGERS = 200
ATTACKS_PER_SECOND = 20
FLOODS = 10
UPDATES = 4000

Work = Callable[[Pki, int], list[float]]
Hostile = Callable[[Pki, int], AbstractContextManager[None]]


@contextmanager
def nobody(pki: Pki, port: int) -> Iterator[None]:
    yield


@contextmanager
def strangers(pki: Pki, port: int) -> Iterator[None]:
    """Garbage that begins like a ClientHello, so that it is not closed at once."""
    garbage = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + os.urandom(200)
    with ExitStack() as stack:
        for _ in range(STRANGERS):
            stack.enter_context(plain(port))
            stack.enter_context(plain(port)).sendall(garbage)
        yield


@contextmanager
def meanwhile(attacks: Iterable[Callable[[], object]]) -> Iterator[None]:
    """One after the other, on another thread."""
    stop = threading.Event()

    def run() -> None:
        for attack in attacks:
            if stop.wait(1 / ATTACKS_PER_SECOND):
                return
            attack()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@contextmanager
def rogues(pki: Pki, port: int) -> Iterator[None]:
    context = client_context(pki, Authority(pki.folder, "rogue").issue("rogue"))
    with meanwhile(repeat(lambda: outcome(port, context))):
        yield


@contextmanager
def key_updates(pki: Pki, port: int) -> Iterator[None]:
    """Each client has shaken hands and sealed all of its flood before the clock runs."""
    with ExitStack() as stack:
        floods = []
        for _ in range(FLOODS):
            client = RecordClient(pki, port)
            stack.callback(client.sock.close)
            flood = b"".join(client.sealed_update(wants_answer=True) for _ in range(UPDATES))
            floods.append(partial(send, client, flood))
        with meanwhile(floods):
            yield


def send(client: RecordClient, flood: bytes) -> None:
    with suppress(OSError):  # it is cut off
        client.sock.sendall(flood)


def connects(pki: Pki, port: int) -> list[float]:
    """Milliseconds from connect to the first echo, each on a connection of its own."""
    context = client_context(pki, pki.alice)
    times = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        with TlsClient(port, context) as client:
            client.handshake().echo(b"x")
            times.append((time.perf_counter() - began) * 1e3)
    return times


def echoes(pki: Pki, port: int) -> list[float]:
    """Milliseconds of an echo on one open connection."""
    times = []
    with connect(pki, port) as client:
        for _ in range(20 * SAMPLES):
            began = time.perf_counter()
            client.echo(b"x")
            times.append((time.perf_counter() - began) * 1e3)
    return times


WORKS: list[tuple[str, Work, Hostile]] = [
    ("connect beside 400 strangers", connects, strangers),
    ("connect beside rogues", connects, rogues),
    ("echo beside 400 strangers", echoes, strangers),
    ("echo beside floods of key updates", echoes, key_updates),
]


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def compare(pki: Pki, port: int, work: Work, hostile: Hostile, rounds: int) -> list[str]:
    """Cells of a row: medians over the rounds of each round's median and p99, quiet and hostile."""
    quiet: list[list[float]] = []
    disturbed: list[list[float]] = []
    for _ in range(rounds):
        for found, around in ((quiet, nobody), (disturbed, hostile)):
            with around(pki, port):
                found.append(work(pki, port))
    cells = []
    for share in (0.5, 0.99):
        alone, beside = (
            statistics.median(percentile(times, share) for times in found) for found in (quiet, disturbed)
        )
        cells += [f"{significant(alone)} ms", f"{significant(beside)} ms", f"{beside / alone:.2f}"]
    return cells


def memory_of_a_stranger(pki: Pki, daemon: Daemon) -> str:
    pid = daemon.process.pid
    before = memory_kib(pid)
    with strangers(pki, daemon.port()), connect(pki, daemon.port()) as client:
        client.echo(b"they have been read")
        return f"{significant((memory_kib(pid) - before) / (2 * STRANGERS))} KiB"


@contextmanager
def balancer(engine: str, usable: Sequence[int]) -> Iterator[tuple[Pki, Daemon]]:
    """On a CPU of its own; its strangers may stay."""
    proxy_cpu, load_cpu = usable[:2]
    os.sched_setaffinity(0, {load_cpu})
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Upstream() as upstream:
        folder = Path(name)
        pki = Pki(folder)
        pki.server.key.chmod(0o600)
        config = configuration(pki, upstream.address)
        config["node"]["workers"] = 1
        config["tls"] |= {"engine": engine, "handshake_timeout": "60s"}
        config["logging"] = {"access": {"file": str(folder / "access.jsonl")}}
        with Daemon(folder, config) as daemon:
            daemon.port()
            os.sched_setaffinity(daemon.process.pid, {proxy_cpu})
            for task in Path(f"/proc/{daemon.process.pid}/task").iterdir():
                os.sched_setaffinity(int(task.name), {proxy_cpu})
            yield pki, daemon


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a Markdown table; 0: measured, 1: something failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=positive, default=5, help="quiet and hostile ones in turns")
    parser.add_argument("--engine", choices=["s2n", "openssl"], default="s2n", help="the TLS engine")
    options = parser.parse_args(arguments)
    return tell("bench.hostile", lambda: measure(options.engine, options.rounds))


def measure(engine: str, rounds: int) -> None:
    """All works, and a row for each as soon as it has been measured."""
    usable = usable_cpus()
    network.enter_if_allowed()
    print(", ".join(f"{name} {value}" for name, value in machine().items()))
    with balancer(engine, usable) as (pki, daemon):
        connects(pki, daemon.port())  # warm
        print(f"\n{engine}: a stranger holds {memory_of_a_stranger(pki, daemon)} of memory\n")
        print("| a good client's | median alone | beside | ratio | p99 alone | beside | ratio |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for name, work, hostile in WORKS:
            cells = compare(pki, daemon.port(), work, hostile, rounds)
            print("| " + " | ".join([name, *cells]) + " |", flush=True)


if __name__ == "__main__":
    run(main)
