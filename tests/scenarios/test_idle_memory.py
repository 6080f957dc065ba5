"""What an idle TLS connection costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.balancer import TLS_ENGINE
from kit.fixtures import Keep, MakeBalancer
from kit.memory import anonymous_bytes
from kit.pki import Pki
from kit.upstreams import Upstream
from kit.waiting import wait_until

PROGRAM = Path(__file__).parent / "programs" / "idle_clients.py"
COUNT = 500
BOUND = {"s2n": 16, "openssl": 32}[TLS_ENGINE] * 1024  # half of what it is with buffers that stay


@pytest.mark.slow
@pytest.mark.memory
def test_idle_connections_are_small(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    # Never accepted by Python: only the balancer's memory grows in this process.
    lb = balance(keep(Upstream(accepting=False)))
    with opened(lb.port, pki):  # those that are not quiet yet set the size of the heap, once
        lb.wait_open(COUNT)
        before = anonymous_bytes()
        with opened(lb.port, pki):
            lb.wait_open(2 * COUNT)
            # What is not used goes back a moment after the last byte.
            wait_until(lambda: (anonymous_bytes() - before) / COUNT < BOUND, f"under {BOUND} bytes each")
    lb.wait_quiet(10)


@contextmanager
def opened(port: int, pki: Pki) -> Iterator[None]:
    """`COUNT` connections of another process."""
    command = [sys.executable, str(PROGRAM), str(port), str(COUNT)]
    command += [str(path) for path in (pki.ca.cert, pki.alice.cert, pki.alice.key)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
        try:
            assert clients.stdout is not None
            assert clients.stdout.readline() == b"ready\n"
            yield
        finally:
            clients.communicate()
