"""The network of a run: a loopback of its own, with the congestion control that Linux comes with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit.servers import missing

from bench import network

LOOK = """
import ctypes, json, os, socket, sys
from bench import network
user = int(sys.argv[1])
if user != os.getuid():
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    PR_SET_DUMPABLE = 4                  # the kernel took it away, and with it what is in /proc/self
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
try:
    network.enter()
except network.NoNamespace as problem:
    print(json.dumps({"none": str(problem)}))
else:
    print(json.dumps({
        "control": network.congestion_control(),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "inode": os.stat("/proc/self/ns/net").st_ino,
        "user": os.getuid(),
    }))
"""
NOBODY = 65534


@pytest.mark.parametrize("user", [os.getuid(), NOBODY], ids=["whoever runs the tests", "nobody"])
def test_it_is_apart_and_does_not_pace(user: int) -> None:
    if user != os.getuid() != 0:
        pytest.skip("needs root, to be somebody else")
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", LOOK, str(user)]
    seen = subprocess.run(command, check=True, capture_output=True, timeout=30, cwd=root)
    found = json.loads(seen.stdout)
    if "none" in found:
        missing(f"the kernel gives no namespace: {found['none']}")
    assert (found["control"], found["interfaces"]) == ("cubic", ["lo"])
    assert found["inode"] != Path("/proc/self/ns/net").stat().st_ino
    assert found["user"] == user


def test_what_cannot_be_set_up_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried in a child: from a namespace that is of no use there is no way back."""
    before = Path("/proc/self/ns/net").readlink()
    monkeypatch.setattr(network, "CONGESTION_CONTROL", "unheard-of")
    with pytest.raises(network.NoNamespace, match=r"unheard-of|not permitted"):
        network.enter()
    assert Path("/proc/self/ns/net").readlink() == before
