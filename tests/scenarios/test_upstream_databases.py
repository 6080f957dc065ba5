"""Databases behind the balancer: one of two crashes and comes back under short queries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGQUIT
from types import TracebackType
from typing import Self

import pytest
from kit.balancer import Balancer
from kit.clients import Finished
from kit.fixtures import Keep, MakeBalancer
from kit.servers import Server, as_user, free_port, nobody, require_server
from kit.tunnel import tunnel
from kit.upstreams import Refuser
from kit.waiting import wait_until

from lbcore import UpstreamServer

THREADS = 3
PATHS = pytest.mark.parametrize("path", ["plaintext", "tls"])

#: A port to ask; the answer is the port of the server that gave it, as it knows it.
Ask = Callable[[int], Finished]


# ---- under load ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """What one client got.

    Attributes:
        asked: when it began, on the monotonic clock.
        failed: its program says so.
        text: what that has printed.
    """

    asked: float
    failed: bool
    text: str


class Load:
    """Clients that ask again and again, each time on a new connection."""

    def __init__(self, port: int, ask: Ask) -> None:
        self.answers: list[Answer] = []
        self._port, self._ask = port, ask
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(THREADS)

    def __enter__(self) -> Self:
        self._jobs = [self._pool.submit(self._run) for _ in range(THREADS)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown()

    def wait(self, count: int, since: float = 0.0) -> list[Answer]:
        """So many answers at least to who has asked since then."""

        def there() -> list[Answer] | None:
            for job in self._jobs:
                if job.done():
                    job.result()  # raises
            answers = [answer for answer in self.answers if answer.asked >= since]
            return answers if len(answers) >= count else None

        found = wait_until(there, f"{count} answers", timeout=30)
        assert found is not None
        return found

    def _run(self) -> None:
        while not self._stop.is_set():
            asked = time.monotonic()
            finished = self._ask(self._port)
            self.answers.append(Answer(asked, finished.status != 0, finished.output.strip()))


def survives(lb: Balancer, port: int, servers: list[Server], ask: Ask, clean: re.Pattern[str]) -> None:
    """The first server crashes under load and is started again."""
    crashing = lb.app.upstreams[0]
    first, second = (str(server.port) for server in servers)

    def is_used_again() -> bool:
        return {answer.text for answer in load.wait(10, time.monotonic())} == {first, second}

    with Load(port, ask) as load:
        assert {answer.text for answer in load.wait(20)} == {first, second}
        servers[0].kill()
        crashed = time.monotonic()
        without = load.wait(30, crashed)
        before = [answer for answer in load.answers if answer.asked < crashed]
        servers[0].start()
        wait_until(is_used_again, "it is used again, and all is well", timeout=20)
    assert {(answer.failed, answer.text) for answer in without} == {(False, second)}
    assert sum(answer.failed for answer in before) <= THREADS  # whose connections it had when it crashed
    failed = [answer.text for answer in load.answers if answer.failed]
    assert [text for text in failed if not clean.search(text)] == []
    assert {answer.text for answer in load.answers if not answer.failed} == {first, second}
    assert crashing.state == "up"
    lb.wait_quiet()
    reasons = {record.reason for record in lb.records.all(event="conn.close")}
    assert reasons <= {"client_closed", "upstream_closed", "upstream_reset", "client_reset"}
    # One asks whether the tunnel is there and leaves; nobody was refused.
    assert {record.reason for record in lb.records.all(event="conn.deny")} <= {"client_gone"}


def front(lb: Balancer, path: str, keep: Keep, folder: Path) -> int:
    """The port for clients that speak no TLS themselves."""
    return lb.port if path == "plaintext" else keep(tunnel(lb.pki, lb.port, lb.pki.alice, folder)).port


APP = {"passive_failures": 1, "passive_eject": 0.3, "connect_timeout": 3.0}


# ---- MariaDB -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mariadb_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh data directory, to be copied."""
    data = tmp_path_factory.mktemp("mariadb") / "data"
    subprocess.run(
        [require_server("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db",
         "--auth-root-authentication-method=normal", "--user=root", "--innodb-log-file-size=4M"],
        check=True, capture_output=True, timeout=50,
    )  # fmt: skip
    return data


def mariadb(data: Path, folder: Path) -> Server:
    """A server on a copy of the data."""
    port = free_port()
    folder.mkdir()
    shutil.copytree(data, folder / "data")
    options = [
        "--no-defaults", f"--datadir={folder}/data", "--user=root", "--bind-address=127.0.0.1",
        f"--port={port}", f"--socket={folder}/unused.sock", f"--pid-file={folder}/pid",
        "--skip-grant-tables", "--skip-networking=0", "--innodb-buffer-pool-size=16M",
        "--innodb-log-file-size=4M", "--skip-name-resolve",
    ]  # fmt: skip
    return Server([require_server("mariadbd"), *options], port, folder / "output")


def ask_mariadb(port: int) -> Finished:
    command = [
        require_server("mariadb"), "--no-defaults", "--protocol=tcp", "-h127.0.0.1", f"-P{port}", "-uroot",
        "-Ne", "select @@port",
    ]  # fmt: skip
    answer = subprocess.run(command, capture_output=True, timeout=20, check=False, text=True)
    return Finished(answer.returncode, answer.stderr if answer.returncode else answer.stdout)


#: 2002, 2003: no connection; 2013: the one it had was lost, before or in the query; 1053: shutting down.
MARIADB_CLEAN = re.compile(r"ERROR (2002|2003|2006|2013|1053) \(")


@pytest.mark.slow
@PATHS
def test_mariadb_crashes_and_comes_back(
    balance: MakeBalancer, keep: Keep, tmp_path: Path, mariadb_data: Path, path: str
) -> None:
    servers = [keep(mariadb(mariadb_data, tmp_path / name)) for name in ("one", "two")]
    lb = balance(*servers, plaintext=path == "plaintext", app=APP)
    survives(lb, front(lb, path, keep, tmp_path), servers, ask_mariadb, MARIADB_CLEAN)


@pytest.mark.slow
@PATHS
def test_mariadb_beside_one_that_refuses(
    balance: MakeBalancer, keep: Keep, tmp_path: Path, mariadb_data: Path, path: str
) -> None:
    """No client notices, and the greeting comes without a byte of theirs."""
    server = keep(mariadb(mariadb_data, tmp_path / "one"))
    refusing = UpstreamServer(keep(Refuser()).address)
    lb = balance(refusing, server, plaintext=path == "plaintext", app={"passive_failures": 0})
    port = front(lb, path, keep, tmp_path)
    with Load(port, ask_mariadb) as load:
        load.wait(30)
    assert {(answer.failed, answer.text) for answer in load.answers} == {(False, str(server.port))}
    assert refusing.errors >= 10


# ---- PostgreSQL ----------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that PostgreSQL's user may reach: it does not run as root, and pytest's folders are root's then."""
    with tempfile.TemporaryDirectory(prefix="postgres") as name:
        user = as_user(nobody())
        if user:
            os.chown(name, user["user"], user["group"])
        yield Path(name)


def postgres(folder: Path, name: str) -> Server:
    """A server with a database of its own."""
    data = folder / name
    subprocess.run(
        [require_server("initdb"), "-D", str(data), "--auth=trust", "--username=alice", "--no-sync",
         "--locale=C", "--encoding=UTF8"],
        check=True, capture_output=True, timeout=50, **as_user(nobody()),
    )  # fmt: skip
    port = free_port()
    settings = {
        "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off",
        "shared_buffers": "16MB", "max_connections": 30, "autovacuum": "off",
    }  # fmt: skip
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    return Server(
        [require_server("postgres"), "-D", str(data), *options], port, folder / f"{name}.log",
        user=nobody(), end=SIGINT, kill=SIGQUIT,
    )  # fmt: skip


def ask_postgres(port: int) -> Finished:
    # Not the Perl script that Debian has in /usr/bin: it costs more than the query.
    program = Path(require_server("postgres")).resolve().with_name("psql")
    command = [str(program), "-X", "-h", "127.0.0.1", "-p", str(port), "-U", "alice", "-d", "postgres"]
    environment = {"PGSSLMODE": "disable", "PGGSSENCMODE": "disable", "PGCONNECT_TIMEOUT": "10"}
    answer = subprocess.run(
        [*command, "-Atc", "select inet_server_port()"],
        capture_output=True, timeout=20, check=False, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    return Finished(answer.returncode, answer.stderr if answer.returncode else answer.stdout)


POSTGRES_CLEAN = re.compile(
    r"server closed the connection unexpectedly|Connection reset by peer|Connection refused"
    r"|FATAL:  the database system is (starting up|shutting down|not yet accepting connections)"
    r"|terminating connection because of unexpected postmaster exit|immediate shutdown command"
)


@pytest.mark.slow
@PATHS
def test_postgres_crashes_and_comes_back(
    balance: MakeBalancer, keep: Keep, tmp_path: Path, folder: Path, path: str
) -> None:
    servers = [keep(postgres(folder, name)) for name in ("one", "two")]
    lb = balance(*servers, plaintext=path == "plaintext", app=APP)
    survives(lb, front(lb, path, keep, tmp_path), servers, ask_postgres, POSTGRES_CLEAN)
