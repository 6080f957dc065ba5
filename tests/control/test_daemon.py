"""`lbctl run` as a real process: start, signals, stop, and what it says."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kit.clients import client_context, connect, outcome, plain
from kit.daemon import Daemon, configuration, environment
from kit.pki import Identity, Pki
from kit.servers import free_port, require_server
from kit.sockets import End
from kit.upstreams import Upstream
from kit.waiting import wait_until

from lbctl import __version__
from lbctl.systemd import is_service, notify

T = TypeVar("T")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def config(pki: Pki, upstream: Upstream) -> dict[str, Any]:
    pki.server.key.chmod(0o600)
    return configuration(pki, upstream.address)


def stop(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


# ---- start ---------------------------------------------------------------------------------------


def test_it_forwards_what_a_client_sends(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    with Daemon(tmp_path, config) as daemon:
        with connect(pki, daemon.port()) as client:
            client.echo(b"hello")
        closed = daemon.wait_event("conn.close")
        assert closed["client"] == "alice"
        assert (closed["bytes_in"], closed["bytes_out"], closed["reason"]) == (5, 5, "client_closed")
        stop(daemon)


def test_the_start_says_what_there_is(tmp_path: Path, config: dict[str, Any], upstream: Upstream) -> None:
    config["apps"]["open"] = {
        "listen": "127.0.0.1:0",
        "plaintext": True,
        "upstreams": [{"address": upstream.address}],
    }
    with Daemon(tmp_path, config) as daemon:
        ready = daemon.wait_event("ready", app="open")
        assert ready["upstreams"] == 1
        assert ready["node"] == "lb-1"
        assert daemon.wait_event("ready", app="web")
        start = daemon.wait_event("start")
        assert start["version"] == __version__
        assert start["workers"] == 2
        assert "no TLS" in daemon.wait_event("plaintext", app="open")["message"]
        assert not daemon.events("plaintext", app="web")
        with plain(daemon.port("open")) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        stop(daemon)


def test_the_descriptor_limit_is_raised(tmp_path: Path, config: dict[str, Any]) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(1024, hard - 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        with Daemon(tmp_path, config) as daemon:
            limits = daemon.wait_event("limits")
            stop(daemon)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert limits["descriptors_from"] == wanted
    assert limits["descriptors_to"] == hard
    assert 0 < limits["max_connections"] < hard


def test_every_port_that_is_taken_is_named(tmp_path: Path, config: dict[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [sock.getsockname()[1] for sock in (one, two)]
        config["apps"]["web"]["listen"] = f"127.0.0.1:{ports[0]}"
        config["apps"]["db"] = {**config["apps"]["web"], "listen": f"127.0.0.1:{ports[1]}"}
        with Daemon(tmp_path, config) as daemon:
            assert daemon.wait() == 1
            for name, port in zip(("web", "db"), ports, strict=True):
                expected = f"apps.{name}.listen: cannot listen on 127.0.0.1:{port}: Address already in use"
                assert expected in daemon.text()
            assert "Traceback" not in daemon.text()
            assert not daemon.events("ready")


def test_an_address_of_another_machine_is_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    config["apps"]["web"]["listen"] = "192.0.2.1:0"
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 1
        assert "this machine does not have that address" in daemon.text()


def test_more_connections_than_descriptors_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    config["node"]["max_connections"] = 2_000_000_000
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 1
        assert "node.max_connections: " in daemon.text()


def test_a_missing_certificate_is_named_with_its_place(tmp_path: Path, config: dict[str, Any]) -> None:
    config["tls"]["cert"] = "nowhere.pem"
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 78
        assert "tls.cert: cannot read" in daemon.text()
        assert "nowhere.pem: No such file or directory" in daemon.text()


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    key = tmp_path / "server.key"
    key.write_bytes(pki.server.key.read_bytes())
    key.chmod(0o640)
    config["tls"]["key"] = "server.key"
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 78
        assert "open to other users (mode 0640); run: chmod 600" in daemon.text()
        assert "PRIVATE KEY" not in daemon.text()


def test_a_named_file_that_is_missing_is_fatal(tmp_path: Path) -> None:
    with Daemon(tmp_path, None, "-c", "absent.yaml") as daemon:
        assert daemon.wait() == 78
        assert daemon.text() == "lbctl: error: absent.yaml: no such file (named by --config)\n"


NO_CONFIGURATION = pytest.mark.skipif(
    Path("/etc/lbctl/lb.yaml").exists(), reason="this machine has a configuration, /etc/lbctl/lb.yaml"
)


@NO_CONFIGURATION
def test_overrides_of_nothing_do_not_start_the_demo(tmp_path: Path) -> None:
    with Daemon(tmp_path, environ={"LBCTL_SET__node__name": "x"}) as daemon:
        assert daemon.wait() == 78
        assert "no configuration that LBCTL_SET__node__name could override" in daemon.text()


@NO_CONFIGURATION
def test_a_service_without_configuration_never_runs_the_demo(tmp_path: Path) -> None:
    with Daemon(tmp_path, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
        assert daemon.wait() == 78
        assert daemon.text().startswith("lbctl: error: no configuration")
        assert len(daemon.text().splitlines()) == 1
        assert not (tmp_path / "certs").exists()


def test_the_access_log_must_open(tmp_path: Path, config: dict[str, Any]) -> None:
    config["logging"] = {"access": {"file": "no/such/folder/access.jsonl"}}
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 1
        assert "logging.access.file: cannot write" in daemon.text()


def test_certificates_about_to_end_are_named(tmp_path: Path, config: dict[str, Any]) -> None:
    config["tls"]["expiry_warning"] = ["60d"]  # the test's server certificate has a week
    with Daemon(tmp_path, config) as daemon:
        assert "expires in" in daemon.wait_event("certificate", path="tls.cert")["message"]
        stop(daemon)


def test_the_command_line_comes_before_the_environment_before_the_file(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    environ = {"LBCTL_SET__node__name": "from-environment", "LBCTL_SET__node__workers": "1"}
    with Daemon(tmp_path, config, "--set", "node.name=from-command", environ=environ) as daemon:
        assert daemon.wait_event("start", node="from-command")["workers"] == 1
        stop(daemon)


def test_dry_run_opens_nothing(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "lb.yaml").write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "lbctl", "run", "--dry-run", "--set", f"apps.web.listen={listen}"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert f"would open {listen} for web" in done.stdout


def test_dry_run_fails_where_run_would(tmp_path: Path, config: dict[str, Any]) -> None:
    config["tls"]["client_ca"] = "absent.pem"
    with Daemon(tmp_path, config, "--dry-run") as daemon:
        assert daemon.wait() == 78
        assert "tls.client_ca: cannot read" in daemon.text()


# ---- refusals ------------------------------------------------------------------------------------


def test_strangers_are_refused_each_with_its_reason(
    tmp_path: Path, pki: Pki, config: dict[str, Any], upstream: Upstream
) -> None:
    config["clients"]["mallory"] = {"serials": [f"{pki.bob.serial:X}"]}
    stranger = pki.client()
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        for identity in (pki.bob, stranger):
            assert outcome(port, client_context(pki, identity)) is End.RESET
        denied = daemon.wait_event("conn.deny", reason="app_not_allowed")
        assert denied["client"] == "mallory"
        assert denied["fix"] == 'add "web" under clients.mallory.apps'
        assert denied["subject"] == "CN=bob"
        unknown = daemon.wait_event("conn.deny", reason="unknown_serial")
        pairs = re.findall("..", unknown["serial"])
        assert unknown["fix"] == f'add "{":".join(pairs)}" under clients.NAME.serials'
        assert int(unknown["serial"], 16) == stranger.serial
        stop(daemon)
    assert upstream.accepted == 0


HOSTILE = [
    'x\n{"event":"conn.close","client":"root"}',
    "\x1b]0;owned\x07\x1b[2J\x9b31m",
    "<img src=x onerror=alert(1)>",
    '"} 1\nfake_total 9',
    "\u202etxt.exe\u2066",
    "%n%s{0}{self.__class__}",
    "\r\nDENIED web",
]


@pytest.fixture(scope="module")
def hostile(pki: Pki) -> list[Identity]:
    """Strangers with such names."""
    return [pki.ca.issue(f"hostile-{number}", organizations=[text]) for number, text in enumerate(HOSTILE)]


def test_names_on_certificates_are_only_text(
    tmp_path: Path, pki: Pki, config: dict[str, Any], hostile: list[Identity]
) -> None:
    """One line for each event, which says what it is in spite of them."""
    known = pki.ca.issue("known", serial=0x7777, organizations=HOSTILE)
    config["clients"]["known"] = {"serials": ["7777"], "apps": ["web"]}
    with Daemon(tmp_path, config) as daemon:
        for identity in hostile:
            assert outcome(daemon.port(), client_context(pki, identity)) is End.RESET
        with connect(pki, daemon.port(), known) as client:
            client.echo(b"hello")
        daemon.wait_event("conn.close")
        stop(daemon)
        lines = daemon.text().splitlines()
    assert not [line for line in lines if not line.isprintable()]
    entries = [json.loads(line) for line in lines]
    assert [entry["client"] for entry in entries if entry["event"] == "conn.close"] == ["known"]
    denied = [entry["subject"] for entry in entries if entry["event"] == "conn.deny"]
    assert len(denied) == len(set(denied)) == len(HOSTILE)


def test_names_on_certificates_are_only_text_on_a_terminal(
    tmp_path: Path, pki: Pki, config: dict[str, Any], hostile: list[Identity]
) -> None:
    import pty

    controller, terminal = pty.openpty()
    seen = bytearray()
    try:
        with Daemon(tmp_path, config, stderr=terminal) as daemon:
            read_until(controller, seen, rb"ready      app=web listen=127.0.0.1:(\d+)")
            port = int(re.search(rb"listen=127.0.0.1:(\d+)", seen)[1])  # type: ignore[index]  # read until it is there
            for count, identity in enumerate(hostile, 1):
                outcome(port, client_context(pki, identity))
                read_until(controller, seen, rb"(?s)(DENIED .*?unknown_serial .*?\r\n.*?){%d}" % count)
            stop(daemon)
    finally:
        os.close(controller)
        os.close(terminal)
    lines = seen.decode().split("\r\n")
    assert not [line for line in lines if not line.isprintable()]
    denied = [line for line in lines if re.match(r"\d\d:\d\d:\d\d DENIED     web  127.0.0.1:", line)]
    assert len(denied) == len(HOSTILE)


def test_a_client_is_held_to_its_limits(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"concurrent": 1}}
    with Daemon(tmp_path, config) as daemon:
        with connect(pki, daemon.port()) as first:
            first.echo(b"x")
            with connect(pki, daemon.port()) as second:
                assert second.receive_to_end() == (b"", End.CLOSE_NOTIFY)
            denied = daemon.wait_event("conn.deny", reason="concurrent")
        assert denied["fix"].startswith("raise concurrent in limits.default")
        stop(daemon)


def test_refusals_above_the_rate_are_summed(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["logging"] = {"max_denied_per_second": 2}
    attempts = 12
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        for _ in range(attempts):
            with plain(port) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
                sock.recv(1)

        def told() -> int:
            lines = daemon.events("conn.deny", reason="not_tls")
            sums = daemon.events("conn.deny.sum", reason="not_tls")
            return len(lines) + sum(entry["count"] for entry in sums)

        # Nothing more comes: the timer alone must bring the last sum.
        wait_until(lambda: told() == attempts, "all refusals are told of")
        summed = daemon.events("conn.deny.sum")[0]
        assert {"v", "ts", "event", "node", "app", "reason", "count", "window_s"} == set(summed)
        assert len(daemon.events("conn.deny")) < attempts
        stop(daemon)


# ---- stop ----------------------------------------------------------------------------------------


def test_a_signal_after_the_end_does_not_kill(tmp_path: Path, config: dict[str, Any]) -> None:
    """A supervisor that is impatient must not make a failure of a good end."""
    with Daemon(tmp_path, config) as daemon:
        daemon.port()
        daemon.signal(signal.SIGTERM)
        daemon.wait_event("stopped")
        while daemon.process.poll() is None:
            daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


def test_a_stop_lets_open_connections_finish(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        with connect(pki, port) as client:
            client.echo(b"before")
            daemon.signal(signal.SIGTERM)
            daemon.wait_event("stop", signal="SIGTERM", open=1)
            wait_until(lambda: not accepts(port), "the port is closed")
            daemon.signal(signal.SIGHUP)  # a reload now would be a mistake, an exit too
            daemon.wait_event("drain", open=1)
            client.echo(b"after")
        assert daemon.wait() == 0
        assert daemon.wait_event("conn.close", client="alice")["reason"] == "client_closed"
        assert daemon.wait_event("stopped")["message"] == "all connections finished"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_signal_ends_at_once(
    tmp_path: Path, pki: Pki, config: dict[str, Any], number: signal.Signals
) -> None:
    config["node"]["drain_timeout"] = "1h"
    with Daemon(tmp_path, config) as daemon, connect(pki, daemon.port()) as client:
        client.echo(b"x")
        daemon.signal(number)
        daemon.wait_event("stop", signal=number.name)
        daemon.signal(number)
        assert daemon.wait() == 0
        assert daemon.wait_event("conn.close", client="alice")["reason"] == "drained"
        assert client.receive_to_end()[1] in (End.RESET, End.FIN), "not a clean end"


def test_signals_that_arrive_together_are_one() -> None:
    from lbctl.signals import Signals

    with Signals(signal.SIGUSR1, signal.SIGUSR2) as signals:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        assert signals.wait(5) == [signal.SIGUSR1, signal.SIGUSR2]
        assert signals.wait(0) == []
        signals.wake()
        assert signals.wait(5) == []
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_the_third_signal_ends_a_process_that_hangs(tmp_path: Path, config: dict[str, Any]) -> None:
    program = textwrap.dedent(
        """
        import json, sys, threading
        from lbctl import config, daemon
        daemon.Service.stop = lambda self, drain: threading.Event().wait()
        sys.exit(daemon.serve(config.build(json.loads(sys.argv[1]))))
        """
    )
    with Daemon(tmp_path, command=("-c", program, json.dumps(config))) as daemon:
        daemon.port()
        daemon.signal(signal.SIGTERM)
        daemon.wait_event("drain")
        daemon.signal(signal.SIGTERM)
        daemon.wait_event("stop", message="ending the open connections now")
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 1


def test_the_drain_has_an_end(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["node"]["drain_timeout"] = "100ms"
    with Daemon(tmp_path, config) as daemon, connect(pki, daemon.port()) as client:
        client.echo(b"x")
        stop(daemon)
        assert daemon.wait_event("stopped")["message"] == "open connections were ended"


def test_a_hang_up_is_answered_and_changes_nothing(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        daemon.signal(signal.SIGHUP)
        assert "not in this version" in daemon.wait_event("reload", signal="SIGHUP")["message"]
        with connect(pki, port) as client:
            client.echo(b"x")
        stop(daemon)


def test_a_terminate_under_load_loses_no_connection(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        clients = [connect(pki, port) for _ in range(20)]
        try:
            for client in clients:
                client.echo(b"established")
            daemon.signal(signal.SIGTERM)
            daemon.wait_event("stop")
            for client in clients:
                client.echo(b"still there" * 1000)
        finally:
            for client in clients:
                client.close()
        assert daemon.wait() == 0
        assert {entry["reason"] for entry in daemon.events("conn.close")} == {"client_closed"}
        assert len(daemon.events("conn.close")) == len(clients)


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


# ---- logs that cannot be written -----------------------------------------------------------------


def test_a_full_disk_is_told_once_and_harms_nobody(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["logging"] = {"access": {"file": "/dev/full"}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        for _ in range(3):
            with connect(pki, port) as client:
                client.echo(b"x")
            daemon.wait_event("log.failed", file="/dev/full")
        assert "No space left" in daemon.wait_event("log.failed")["message"]
        stop(daemon)
        assert len(daemon.events("log.failed")) == 1


def test_records_go_to_the_access_file(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["logging"] = {"access": {"file": "access.jsonl"}}
    access = tmp_path / "access.jsonl"
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        with connect(pki, port) as client:
            client.echo(b"x")
        outcome(port, client_context(pki, pki.bob))
        wait_until(lambda: len(access.read_text().splitlines()) == 2, "both records")
        stop(daemon)
        assert not daemon.events("conn.close")
    assert access.stat().st_mode & 0o027 == 0
    assert {json.loads(line)["event"] for line in access.read_text().splitlines()} == {
        "conn.close",
        "conn.deny",
    }


def test_a_stderr_nobody_reads_does_not_hold_up_the_stop(
    tmp_path: Path, pki: Pki, config: dict[str, Any]
) -> None:
    port = free_port()
    config["apps"]["web"]["listen"] = f"127.0.0.1:{port}"
    config["logging"] = {"access": {"file": "access.jsonl"}}
    access = tmp_path / "access.jsonl"
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        fill(writer)
        os.set_blocking(writer, True)  # the same pipe for the child: it would block on the first byte
        with Daemon(tmp_path, config, stderr=writer) as daemon:
            wait_until(lambda: accepts(port), "the port opens")
            with connect(pki, port) as client:
                client.echo(b"x")
            wait_until(lambda: "conn.close" in access.read_text(), "the record, which goes elsewhere")
            stop(daemon)
    finally:
        os.close(reader)
        os.close(writer)


def test_a_stderr_that_is_closed_does_not_matter(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    port = free_port()
    config["apps"]["web"]["listen"] = f"127.0.0.1:{port}"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with Daemon(tmp_path, config, stderr=writer) as daemon:
            wait_until(lambda: accepts(port), "the port opens")
            with connect(pki, port) as client:
                client.echo(b"x")
            stop(daemon)
    finally:
        os.close(writer)


def fill(writer: int) -> None:
    while select.select([], [writer], [], 0)[1]:
        os.write(writer, b"\0" * select.PIPE_BUF)


# ---- on a terminal -------------------------------------------------------------------------------


def test_on_a_terminal_people_get_words(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    import pty

    controller, terminal = pty.openpty()
    seen = bytearray()
    try:
        with Daemon(tmp_path, config, stderr=terminal) as daemon:
            read_until(controller, seen, rb"ready      app=web listen=127.0.0.1:(\d+) upstreams=1")
            port = int(re.search(rb"listen=127.0.0.1:(\d+)", seen)[1])  # type: ignore[index]  # read until it is there
            outcome(port, client_context(pki, pki.bob))
            read_until(controller, seen, rb"\d\d:\d\d:\d\d DENIED     web  127.0.0.1:\d+  CN=bob \(1002\)  ")
            read_until(controller, seen, rb'unknown_serial  id=\S+  fix: add "10:02" under clients\.NAME')
            stop(daemon)
    finally:
        os.close(controller)
        os.close(terminal)


def read_until(fd: int, seen: bytearray, pattern: bytes) -> None:
    deadline = time.monotonic() + 10
    while not re.search(pattern, seen):
        assert select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0], bytes(seen)
        seen += os.read(fd, 4096)


# ---- systemd -------------------------------------------------------------------------------------


def test_the_service_manager_is_told(tmp_path: Path, config: dict[str, Any], keep: Callable[[T], T]) -> None:
    manager = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    manager.bind(str(tmp_path / "notify"))
    manager.settimeout(10)
    with Daemon(tmp_path, config, environ={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as daemon:
        assert manager.recv(100) == b"READY=1"
        assert daemon.events("ready") or daemon.wait_event("ready"), "ready only when the ports are open"
        daemon.signal(signal.SIGTERM)
        assert manager.recv(100) == b"STOPPING=1"
        assert daemon.wait() == 0


def test_an_abstract_socket_is_understood(keep: Callable[[T], T]) -> None:
    manager = keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
    name = f"lbctl-test-{os.getpid()}"
    manager.bind("\0" + name)
    assert notify("READY=1", {"NOTIFY_SOCKET": "@" + name})
    assert manager.recv(100) == b"READY=1"


def test_without_a_manager_nothing_is_told() -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "/no/such/socket"})


def test_who_is_a_service() -> None:
    assert is_service({"NOTIFY_SOCKET": "/run/systemd/notify"}, 10)
    assert is_service({"SYSTEMD_EXEC_PID": "10"}, 10)
    assert not is_service({"SYSTEMD_EXEC_PID": "9"}, 10), "an ancestor is, such as a login shell"
    assert not is_service({}, 10)


# ---- from Python ---------------------------------------------------------------------------------


def test_a_configuration_built_in_python_is_served(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    program = textwrap.dedent(
        """
        import json, sys
        from lbctl import config, daemon
        sys.exit(daemon.serve(config.build(json.loads(sys.argv[1]))))
        """
    )
    with Daemon(tmp_path, command=("-c", program, json.dumps(config))) as daemon:
        with connect(pki, daemon.port()) as client:
            client.echo(b"x")
        stop(daemon)


def test_a_service_runs_without_signals(pki: Pki, config: dict[str, Any]) -> None:
    from lbctl.config import build
    from lbctl.daemon import Service

    with Service(build(config)) as service:
        port = int(service.opened[0].listen.rpartition(":")[2])
        with connect(pki, port) as client:
            client.echo(b"x")
            (connection,) = service.engine.connections()
            assert connection["client"] == "alice"
    assert not accepts(port)


def test_certificates_are_looked_at_again(
    pki: Pki, config: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    from lbctl.config import build
    from lbctl.daemon import Service

    config["tls"]["expiry_warning"] = ["60d"]
    with Service(build(config)) as service:
        service.check_again()
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    about_server = [entry for entry in events if entry.get("path") == "tls.cert"]
    assert len(about_server) == 2, "at start, and when asked again"


def test_the_signals_belong_to_the_main_thread(config: dict[str, Any]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from lbctl import daemon
    from lbctl.config import build

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="main thread"):
        pool.submit(daemon.serve, build(config)).result()


def test_a_closed_stderr_is_not_mistaken_for_a_socket(
    tmp_path: Path, pki: Pki, config: dict[str, Any]
) -> None:
    port = free_port()
    config["apps"]["web"]["listen"] = f"127.0.0.1:{port}"
    program = textwrap.dedent(
        """
        import json, os, sys
        from lbctl import config, daemon
        loaded = config.build(json.loads(sys.argv[1]))
        os.close(2)
        sys.exit(daemon.serve(loaded))
        """
    )
    with Daemon(tmp_path, command=("-c", program, json.dumps(config))) as daemon:
        wait_until(lambda: accepts(port), "the port opens")
        with connect(pki, port) as client:
            client.echo(b"x" * 1000)
        assert Path(f"/proc/{daemon.process.pid}/fd/2").readlink() == Path("/dev/null")
        stop(daemon)


def test_a_service_that_cannot_start_leaves_nothing(pki: Pki, config: dict[str, Any]) -> None:
    from lbctl.config import build
    from lbctl.daemon import Service
    from lbctl.engine_port import CannotListen

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config["apps"]["db"] = {**config["apps"]["web"], "listen": f"127.0.0.1:{port}"}
        with pytest.raises(CannotListen, match=r"apps\.db\.listen"):
            Service(build(config)).start()
    # The fixture that compares descriptors and threads does the rest.


# ---- with curl -----------------------------------------------------------------------------------


def test_curl_gets_through(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    curl = require_server("curl")
    from kit.upstreams import Session

    def answer(session: Session) -> None:
        session.sock.recv(4096)
        session.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nyes")

    with Upstream(answer) as web:
        config["apps"]["web"]["upstreams"] = [{"address": web.address}]
        with Daemon(tmp_path, config) as daemon:
            url = f"https://localhost:{daemon.port()}/"
            command = [curl, "-sS", "--cacert", str(pki.ca.cert)]
            command += ["--cert", str(pki.alice.cert), "--key", str(pki.alice.key), url]
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
            assert done.stdout == "yes", done.stderr
            stop(daemon)
