"""`lbctl run` without descriptors or memory: who is open goes on, nobody spins, it comes back by itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from kit.balancer import Stopwatch
from kit.clients import TlsClient, client_context, connect
from kit.daemon import Daemon, configuration
from kit.pki import Pki
from kit.upstreams import Upstream
from kit.waiting import wait_until

import lbcore

MIB = 1 << 20
#: More than accepting insists on (src/lbcore/parts/headroom.pyx), for two workers.
LEFT = 9 * MIB
CONNECTIONS_MAX = 1000
CPU_SHARE_MAX = 0.1
TICKS = os.sysconf("SC_CLK_TCK")


class Watched:
    """A daemon, and what the kernel knows about it."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._pid = daemon.process.pid

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def data_bytes(self) -> int:
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith("VmData:"):
                return int(line.split()[1]) * 1024
        raise LookupError("no VmData")

    def descriptors(self) -> int:
        """The highest one that is open."""
        return max(int(entry.name) for entry in Path(f"/proc/{self._pid}/fd").iterdir())

    def failures(self) -> int:
        return len(self._daemon.events("accept.failed"))

    @contextmanager
    def limited(self, what: int, limit: int) -> Iterator[None]:
        before = resource.prlimit(self._pid, what)
        resource.prlimit(self._pid, what, (limit, before[1]))
        try:
            yield
        finally:
            resource.prlimit(self._pid, what, before)


def opened(pki: Pki, port: int, count: int) -> Iterator[TlsClient]:
    """Clients, one after the other, until one has to wait or is turned away."""
    context = client_context(pki, pki.alice)
    for _ in range(count):
        client = TlsClient(port, context)
        client.sock.settimeout(1)
        try:
            served = client.handshake().is_served()
        except TimeoutError:
            served = False
        if not served:
            client.close()
            return
        client.sock.settimeout(20)
        yield client


def check(daemon: Daemon, pki: Pki, what: int, limit: int) -> None:
    port = daemon.port()
    watched = Watched(daemon)
    with ExitStack() as stack, connect(pki, port) as before:
        before.echo(b"before")
        with watched.limited(what, limit):
            clients = [stack.enter_context(client) for client in opened(pki, port, CONNECTIONS_MAX)]
            assert len(clients) < CONNECTIONS_MAX
            daemon.wait_event("accept.failed")
            # Who is open is served, those included whose buffers went back meanwhile.
            for client in [before, *clients]:
                client.echo(b"still here")
            watch, cpu, failures = Stopwatch(), watched.cpu_seconds(), watched.failures()
            wait_until(lambda: watch.seconds > 1.5, "a while in which nobody can be let in")
            assert watched.cpu_seconds() - cpu < CPU_SHARE_MAX * watch.seconds
            assert watched.failures() - failures <= watch.seconds + 1
            assert daemon.process.poll() is None
        watch = Stopwatch()
        with connect(pki, port) as client:
            client.echo(b"let in again")
        assert watch.seconds < 1
    assert {event["reason"] for event in daemon.events("conn.deny")} <= {"connect_failed"}
    assert "Traceback" not in daemon.text()


@pytest.fixture
def config(pki: Pki) -> Iterator[dict[str, Any]]:
    pki.server.key.chmod(0o600)
    with Upstream() as upstream:
        yield configuration(pki, upstream.address)


def test_without_descriptors(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    with Daemon(tmp_path, config) as daemon:
        daemon.port()
        check(daemon, pki, resource.RLIMIT_NOFILE, Watched(daemon).descriptors() + 12)


@pytest.mark.parametrize("engine", sorted(lbcore.tls_engines()))
def test_without_memory(tmp_path: Path, pki: Pki, config: dict[str, Any], engine: str) -> None:
    config["tls"]["engine"] = engine
    with Daemon(tmp_path, config) as daemon:
        with connect(pki, daemon.port()) as first:  # what is made once is made
            first.echo(b"x")
        check(daemon, pki, resource.RLIMIT_DATA, Watched(daemon).data_bytes() + LEFT)
