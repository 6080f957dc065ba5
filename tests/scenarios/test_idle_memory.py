"""What an idle TLS connection costs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from kit.fixtures import Keep, MakeBalancer
from kit.memory import anonymous_bytes
from kit.pki import Pki
from kit.upstreams import Upstream

PROGRAM = Path(__file__).parent / "programs" / "idle_clients.py"
COUNT = 500
BOUND = 40 * 1024  # generous: the aim is a third of that


@pytest.mark.slow
def test_idle_connections_are_small(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    # Never accepted by Python: only the balancer's memory grows in this process.
    lb = balance(keep(Upstream(accepting=False)))
    command = [sys.executable, str(PROGRAM), str(lb.port), str(COUNT)]
    command += [str(path) for path in (pki.ca.cert, pki.alice.cert, pki.alice.key)]
    before = anonymous_bytes()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as clients:
        try:
            assert clients.stdout is not None
            assert clients.stdout.readline() == b"ready\n"
            lb.wait_open(COUNT)
            busy = (anonymous_bytes() - before) / COUNT
            time.sleep(1.5)  # the buffers go back after a second without a byte
            idle = (anonymous_bytes() - before) / COUNT
        finally:
            clients.communicate()
    assert idle < BOUND, f"{idle:.0f} bytes each, {busy:.0f} before they were quiet"
    lb.wait_quiet(10)
