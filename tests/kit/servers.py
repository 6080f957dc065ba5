"""Programs that some tests need and that may not be installed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kit.clients import plain
from kit.waiting import PATIENCE, wait_until

#: Program -> how to get it.
PACKAGES = {
    "curl": "apt-get install curl",
    "faketime": "apt-get install faketime",
    "haproxy": "apt-get install haproxy",
    "initdb": "apt-get install postgresql",
    "mariadb": "apt-get install mariadb-client",
    "mariadbd": "apt-get install mariadb-server",
    "mariadb-install-db": "apt-get install mariadb-server",
    "nginx": "apt-get install nginx-light",
    "openssl": "apt-get install openssl",
    "postgres": "apt-get install postgresql",
    "taskset": "apt-get install util-linux",
    "valgrind": "apt-get install valgrind",
}
#: Where they are besides $PATH; Debian keeps PostgreSQL's by version.
FOLDERS = ["/usr/sbin", "/usr/local/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
#: Set where everything must be there, so that a forgotten package does not pass for a green run.
REQUIRED_VARIABLE = "LBCORE_REQUIRE_SERVERS"


def require_server(program: str) -> str:
    """The program's path; without it the test is skipped, or fails where all servers are required."""
    path = shutil.which(program, path=":".join([os.environ.get("PATH", ""), *FOLDERS]))
    if path is None:
        missing(f"needs {program}: {PACKAGES[program]}")
    return path


def missing(message: str) -> NoReturn:
    """Skips the test, or fails it where all servers are required."""
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
    """A server program on a loopback port; it can be killed and started again.

    Args:
        command: what is run.
        port: where it answers when it is ready.
        log: the file for what it prints.
        user: who runs it; None: whoever runs the tests.
        end: the signal that makes it end.
        kill: the signal that makes it crash, with all its processes.
    """

    def __init__(
        self,
        command: list[str],
        port: int,
        log: Path,
        *,
        user: str | None = None,
        end: signal.Signals = signal.SIGTERM,
        kill: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.log = log
        self._command = command
        self._user = user
        self._end, self._kill = end, kill
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Comes back when it answers."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdout=output, stderr=output, **as_user(self._user)
            )
        try:
            wait_until(self._answers, f"{self._command[0]} listens; see {self.log}", timeout=30)
        except BaseException:
            self.close()
            raise

    def kill(self) -> None:
        """A crash; comes back when nothing of it is left."""
        self._stop(self._kill)

    def close(self) -> None:
        """Ends it, if it has not been killed."""
        self._stop(self._end)

    def _stop(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"it has ended: {self.log.read_text(errors='replace')[-2000:]}"
        try:
            plain(self.port).close()
        except ConnectionRefusedError:
            return False
        return True


def nobody() -> str | None:
    """Who runs programs that refuse to be run by root; None: no need."""
    return "nobody" if os.geteuid() == 0 else None


def as_user(user: str | None) -> dict[str, Any]:
    """Options of Popen and run."""
    if user is None:
        return {}
    entry = pwd.getpwnam(user)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": (), "cwd": "/"}
