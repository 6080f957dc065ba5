"""The programs in docs/examples, run as their first lines say."""

from __future__ import annotations

import json
import os
import re
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.clients import connect, plain
from kit.fixtures import Keep
from kit.pki import Identity, Pki
from kit.programs import Program
from kit.sockets import read_to_end
from kit.upstreams import Upstream

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
FREE = "127.0.0.1:0"

Run = Callable[..., Program]


@pytest.fixture
def run(keep: Keep) -> Run:
    return lambda name, *arguments: keep(Program(EXAMPLES / name, *arguments))


def ends(program: Program) -> tuple[int, str, str]:
    program.process.send_signal(signal.SIGTERM)
    return program.ends()


def refused(pki: Pki, port: int, identity: Identity) -> bool:
    """Whether this client gets nothing."""
    with connect(pki, port, identity) as client:
        data, _ = client.receive_to_end()
        return data == b""


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text()
    assert [path.name for path in EXAMPLES.glob("*.py") if f'"{path.name}"' not in here] == []


def test_every_example_says_how_it_is_run() -> None:
    for path in EXAMPLES.glob("*.py"):
        assert f"\n    python docs/examples/{path.name}" in path.read_text() or path.name.startswith("test_")


def test_an_embedded_balancer(run: Run, certs: Path, pki: Pki, upstream: Upstream, keep: Keep) -> None:
    second = keep(Upstream())
    serial = f"{pki.alice.serial:X}"
    program = run("embedded_balancer.py", certs, FREE, serial, upstream.address, second.address)
    with connect(pki, program.port, pki.alice) as one, connect(pki, program.port, pki.alice) as other:
        one.echo(b"one")
        other.echo(b"the other")
        assert (upstream.accepted, second.accepted) == (1, 1)
    assert sorted(program.line().split()[2:] for _ in range(2)) == [
        ["forward", "client_closed", "3"],
        ["forward", "client_closed", "9"],
    ]
    assert refused(pki, program.port, pki.bob)
    assert program.line().split()[2:] == ["authorize", "unknown_serial", "0"]
    assert ends(program) == (0, "", "")


def test_the_embedded_balancer_is_as_short_as_promised() -> None:
    code = re.sub(r'""".*?"""', "", (EXAMPLES / "embedded_balancer.py").read_text(), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30


def test_tenants_have_limits_of_their_own(run: Run, upstream: Upstream) -> None:
    program = run("tenant_limits.py", FREE, upstream.address)
    with plain(program.port) as one, plain(program.port) as two:
        for client in (one, two):
            client.sendall(b"acme")
            assert client.recv(4) == b"acme"
        with plain(program.port) as third:
            assert read_to_end(third)[0] == b""
        assert program.line() == "acme limit concurrent 0 0"
        with plain(program.port, source="127.0.0.2") as globex:
            globex.sendall(b"globex")
            assert globex.recv(6) == b"globex"
        assert program.line() == "globex forward client_closed 6 6"
        with plain(program.port, source="127.0.0.3") as stranger:
            assert read_to_end(stranger)[0] == b""
    assert [program.line() for _ in range(2)] == ["acme forward client_closed 4 4"] * 2
    assert upstream.accepted == 3


class Directory(socketserver.ThreadingTCPServer):
    """Knows clients by serial; JSON lines."""

    daemon_threads = True

    class Session(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            serial = self.rfile.readline().decode().strip()
            server: Any = self.server
            server.asked.append(serial)
            self.wfile.write(server.answers.get(serial, b"null\n"))

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), self.Session)
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def close(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def test_an_authorizer_that_asks_a_directory(
    run: Run, certs: Path, pki: Pki, upstream: Upstream, keep: Keep
) -> None:
    directory: Directory = keep(Directory())
    directory.answers["1001"] = json.dumps({"name": "alice", "apps": ["orders"]}).encode() + b"\n"
    directory.answers["1002"] = json.dumps({"name": "bob", "apps": ["other"]}).encode() + b"\n"
    program = run("async_authorizer.py", certs, FREE, upstream.address, directory.address)
    for _ in range(2):
        with connect(pki, program.port, pki.alice) as client:
            client.echo(b"hello")
        assert program.line() == "alice forward client_closed"
    assert directory.asked == ["1001"], "a good answer is not asked for twice"
    assert refused(pki, program.port, pki.bob)
    assert program.line() == "bob authorize app_not_allowed"
    stranger = pki.client()
    assert refused(pki, program.port, stranger)
    assert program.line() == "None authorize unknown_serial"
    directory.close()
    assert refused(pki, program.port, pki.client())
    assert program.line() == "None authorize authz_error"
    code, output, errors = ends(program)
    assert (code, output) == (0, "")
    assert re.fullmatch(r"the directory does not answer: .*\n", errors)


def command(*arguments: str | Path) -> str:
    """What a program prints that ends by itself."""
    from kit.daemon import environment

    done = subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_limiter_without_a_socket() -> None:
    lines = command("-W", "error", EXAMPLES / "limiter_alone.py").splitlines()
    counts = {text: int(count) for count, text in (line.split(maxsplit=1) for line in lines)}
    assert sum(counts.values()) == 400
    assert counts["done for a"] > 0
    assert counts["done for b"] > 0


def test_the_unit_tests_of_a_policy() -> None:
    alone = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull)
    out = command(*alone, EXAMPLES / "test_my_limits.py")
    assert "2 passed" in out
