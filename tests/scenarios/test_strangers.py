"""What who has not authenticated can hold: memory, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.clients import connect
from kit.fixtures import MakeBalancer
from kit.memory import anonymous_bytes
from kit.pki import Identity, Pki
from kit.upstreams import Upstream
from kit.waiting import wait_until

PROGRAM = Path(__file__).parent / "programs" / "strangers.py"
COUNT = 200
BOUND = 64 * 1024


@contextmanager
def strangers(how: str, port: int, pki: Pki, identity: Identity) -> Iterator[None]:
    """`COUNT` of them, in another process."""
    command = [sys.executable, str(PROGRAM), how, str(port), str(COUNT)]
    command += [str(path) for path in (pki.ca.cert, identity.cert, identity.key)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
        try:
            assert clients.stdout is not None
            assert clients.stdout.readline() == b"ready\n"
            yield
        finally:
            clients.communicate()


@pytest.mark.memory
@pytest.mark.parametrize("how", ["silent", "hello", "retry", "certificate"])
def test_a_stranger_costs_less_than_64_kib(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, how: str
) -> None:
    """Also one that has nearly sent as large a hello, two times, or as large a certificate as may be."""
    identity = pki.ca.issue("large", organizations=["x" * 1000] * 19) if how == "certificate" else pki.alice
    lb = balance(upstream, engine={"handshake_timeout": 30.0, "max_connections": 1})
    before = anonymous_bytes()
    with strangers(how, lb.port, pki, identity):
        wait_until(lambda: lb.engine.stats()["unauthenticated"] == COUNT, "all are there")
        with connect(pki, lb.port) as client:
            client.echo(b"served at once")
        assert (anonymous_bytes() - before) / COUNT < BOUND
    assert {record.reason for record in lb.records.wait(COUNT, reason="client_gone")} == {"client_gone"}
