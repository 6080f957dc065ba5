"""Programs that some tests need and that may not be installed."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

#: Program -> how to get it.
PACKAGES = {
    "curl": "apt-get install curl",
    "faketime": "apt-get install faketime",
    "mariadb": "apt-get install mariadb-client",
    "mariadbd": "apt-get install mariadb-server",
    "mariadb-install-db": "apt-get install mariadb-server",
    "nginx": "apt-get install nginx-light",
    "openssl": "apt-get install openssl",
}
#: Set where everything must be there, so that a forgotten package does not pass for a green run.
REQUIRED_VARIABLE = "LBCORE_REQUIRE_SERVERS"


def require_server(program: str) -> str:
    """The program's path; without it the test is skipped, or fails where all servers are required."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is not None:
        return path
    message = f"needs {program}: {PACKAGES[program]}"
    if os.environ.get(REQUIRED_VARIABLE) == "1":
        pytest.fail(message)
    pytest.skip(message)


def require_fake_clock() -> str:
    """Where libfaketime is, for LD_PRELOAD in programs with threads."""
    program = Path(require_server("faketime")).resolve()
    (library,) = program.parent.parent.glob("lib*/**/libfaketimeMT.so.1")
    return str(library)


def free_port() -> int:
    """A port that was free a moment ago, for servers that must be told one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
