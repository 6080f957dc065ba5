"""Programs that some tests need and that may not be installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from kit.clients import plain
from kit.waiting import wait_until

#: Program -> how to get it.
PACKAGES = {
    "curl": "apt-get install curl",
    "faketime": "apt-get install faketime",
    "haproxy": "apt-get install haproxy",
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


class Server:
    """A server program on a loopback port."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.address = f"127.0.0.1:{port}"
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            wait_until(lambda: self._answers(port), f"{command[0]} listens; see {log}", timeout=30)
        except BaseException:
            self.close()
            raise

    def _answers(self, port: int) -> bool:
        assert self._process.poll() is None, "it has ended"
        try:
            plain(port).close()
        except ConnectionRefusedError:
            return False
        return True

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
