"""The demo, as somebody meets it who types `lbctl run` in an empty folder."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.clients import plain
from kit.daemon import Daemon
from kit.servers import require_server
from kit.waiting import wait_until

from lbctl import demo
from lbctl.demo_upstream import DemoUpstream

PORT = int(demo.LISTEN.rpartition(":")[2])


@pytest.fixture(autouse=True)
def port_is_free() -> None:
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", PORT))
        except OSError:
            pytest.skip(f"another program has the demo's port {PORT}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if Path("/etc/lbctl/lb.yaml").exists():
        pytest.skip("this machine has a configuration, /etc/lbctl/lb.yaml")
    return tmp_path


def wait_ready(daemon: Daemon) -> str:
    def ready() -> bool:
        assert daemon.process.poll() is None, daemon.text()
        return "Ctrl-C drains" in daemon.text()

    wait_until(ready, "the banner")
    return daemon.text()


def stop(daemon: Daemon) -> None:
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == 0


def curl(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [require_server("curl"), "-sS", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20, check=False)


def commands(banner: str) -> dict[str, list[str]]:
    """The banner's own curl commands, by client."""
    lines = [line.split() for line in banner.splitlines() if line.strip().startswith("curl ")]
    return {line[4].removeprefix("certs/").removesuffix(".pem"): line[1:] for line in lines}


def test_the_banners_commands_do_what_it_says(folder: Path) -> None:
    with Daemon(folder) as daemon:
        banner = wait_ready(daemon)
        serials = dict(re.findall(r"(\w+) +serial (\w+)", banner))
        alice = serials["alice"]
        done = curl(folder, *commands(banner)["alice"])
        greeting = rf"hello alice \(serial {alice}\) from upstream 127\.0\.0\.1:\d+\n"
        assert re.fullmatch(greeting, done.stdout), done.stderr

        refused = curl(folder, *commands(banner)["mallory"])
        assert refused.returncode in (55, 56), refused  # reset while it sends or receives: refused for good
        denied = daemon.wait_event("conn.deny", client="mallory")
        assert denied["reason"] == "app_not_allowed"
        assert denied["serial"] == serials["mallory"]
        assert denied["fix"] == 'add "hello" under clients.mallory.apps'
        stop(daemon)


def test_the_banner_names_nothing_that_does_not_exist(folder: Path) -> None:
    with Daemon(folder) as daemon:
        banner = wait_ready(daemon)
        stop(daemon)
    assert "DEMO (no config found; loopback only)" in banner
    assert "limits        20 connections/s, burst 40, 10 at once, per client" in banner
    assert "new CA, SHA-256 " in banner
    assert "status page" not in banner
    assert "explain" not in banner


def test_nobody_without_a_certificate_gets_in(folder: Path) -> None:
    with Daemon(folder) as daemon:
        wait_ready(daemon)
        done = curl(folder, "--cacert", "certs/ca.pem", f"https://localhost:{PORT}/")
        assert done.returncode != 0
        assert not done.stdout
        assert "fix" in daemon.wait_event("conn.deny", reason="no_certificate")
        stop(daemon)


def test_the_second_start_reuses_the_certificates(folder: Path) -> None:
    serials = []
    for state in ("new CA", "reused CA"):
        with Daemon(folder, None, "--demo") as daemon:
            banner = wait_ready(daemon)
            stop(daemon)
        assert state in banner
        assert "DEMO (--demo; loopback only)" in banner
        serials.append(re.findall(r"serial (\w+)", banner))
    assert serials[0] == serials[1]


def test_both_upstreams_answer(folder: Path) -> None:
    with Daemon(folder) as daemon:
        command = commands(wait_ready(daemon))["alice"]
        answers = {curl(folder, *command).stdout for _ in range(8)}
        stop(daemon)
    assert len(answers) == 2


def test_an_upstreams_port_that_is_taken_is_replaced(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # taken by somebody else already, which is as good
            stack.enter_context(socket.create_server(("127.0.0.1", 19001)))
        daemon = stack.enter_context(Daemon(folder))
        banner = wait_ready(daemon)
        assert "127.0.0.1:19001" not in banner
        assert curl(folder, *commands(banner)["alice"]).stdout.startswith("hello alice")
        stop(daemon)


def test_a_demo_that_runs_already_is_named(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", PORT)), Daemon(folder) as daemon:
        assert daemon.wait() == 1
        (line,) = daemon.text().splitlines()
    assert line.startswith("lbctl: error: the demo cannot start: ")
    assert f"cannot listen on 127.0.0.1:{PORT}: Address already in use" in line


# ---- the built-in upstream by itself ---------------------------------------------------------------


@pytest.fixture
def upstream() -> Iterator[DemoUpstream]:
    with DemoUpstream("127.0.0.1:0") as server:
        yield server


def ask(upstream: DemoUpstream, request: bytes) -> bytes:
    with plain(int(upstream.address.rpartition(":")[2])) as sock:
        sock.sendall(request)
        answer = b""
        while part := sock.recv(4096):
            answer += part
        return answer


def test_the_upstream_asks_who_is_behind_the_port(upstream: DemoUpstream) -> None:
    with plain(int(upstream.address.rpartition(":")[2])) as sock:
        host, port = sock.getsockname()
        mine = {"upstream_local": f"{host}:{port}", "upstream": upstream.address}
        other = {"upstream_local": "127.0.0.1:1", "upstream": upstream.address}
        upstream.ask_about_clients(
            lambda: [
                {**other, "client": "bob", "serial": 2},
                {**mine, "client": "alice", "serial": 0x0A12},
            ]
        )
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = sock.recv(4096).decode()
    assert answer.endswith(f"hello alice (serial 0A12) from upstream {upstream.address}\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"200"),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"200"),
        (b"POST / HTTP/1.1\r\n\r\n", b"405"),
        (b"hello\r\n\r\n", b"400"),
    ],
)
def test_the_upstream_speaks_http(upstream: DemoUpstream, request_: bytes, status: bytes) -> None:
    answer = ask(upstream, request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.endswith(b"\r\n\r\n") is request_.startswith(b"HEAD")


def test_the_upstream_is_not_held_up_by_silent_clients(upstream: DemoUpstream) -> None:
    port = int(upstream.address.rpartition(":")[2])
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(plain(port))
        assert b"200 OK" in ask(upstream, b"GET / HTTP/1.1\r\n\r\n")
