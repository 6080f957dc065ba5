"""Classes of limits in a running `lbctl`: what each of them does to connections, and over a restart."""

from __future__ import annotations

import base64
import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kit.clients import TlsClient, connect, plain
from kit.daemon import Daemon, configuration
from kit.pki import Pki
from kit.sockets import End, read_exactly
from kit.upstreams import Upstream, sink, source
from kit.waiting import wait_until

from lbcore import LimitClass

T = TypeVar("T")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def config(pki: Pki, upstream: Upstream) -> dict[str, Any]:
    pki.server.key.chmod(0o600)
    found = configuration(pki, upstream.address)
    found["clients"]["bob"] = {"serials": [f"{pki.bob.serial:X}"], "apps": ["web"]}
    return found


def stop(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def served(client: TlsClient) -> TlsClient:
    client.echo(b"x")
    return client


def refused(client: TlsClient) -> bool:
    return client.receive_to_end() == (b"", End.CLOSE_NOTIFY)


def reach(pki: Pki, port: int) -> bool:
    """Whether alice is served; if not, she was turned away for now."""
    with connect(pki, port) as client:
        return client.is_served()


# ---- one class each ------------------------------------------------------------------------------


def test_a_window_refuses_the_sixth(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"window": "5/1h"}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert [reach(pki, port) for _ in range(6)] == [True] * 5 + [False]
        denied = daemon.wait_event("conn.deny")
        assert (denied["reason"], denied["stage"], denied["scope"]) == ("window", "limit", "client")
        assert denied["fix"] == "raise window in limits.default, or let the client slow down"
        stop(daemon)


def test_a_delay_holds_and_then_serves(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"rate": "1/s", "burst": 1, "mode": "delay", "max_wait": "10s"}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        for word in (b"at once", b"held"):
            with connect(pki, port) as client:
                client.echo(word)
        assert "waited_ms" not in daemon.wait_event("conn.close", bytes_in=7)
        assert 0 < daemon.wait_event("conn.close", bytes_in=4)["waited_ms"] <= 1100
        assert not daemon.events("conn.deny")
        stop(daemon)


def test_a_delay_has_an_end(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"concurrent": 1, "mode": "delay", "max_wait": "200ms"}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        with served(connect(pki, port)), connect(pki, port) as second:
            assert refused(second)
        denied = daemon.wait_event("conn.deny")
        assert (denied["reason"], denied["scope"]) == ("limit_wait", "client")
        assert denied["waited_ms"] >= 200
        assert "max_wait" in denied["fix"]
        stop(daemon)


def test_a_shadow_admits_and_notes(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"window": "1/1h", "mode": "shadow"}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        for number in range(1, 4):  # one after the other: records of different workers come in any order
            assert reach(pki, port)
            wait_until(lambda number=number: len(daemon.events("conn.close")) == number, "a record")
        noted = [entry.get("would_deny") for entry in daemon.events("conn.close")]
        assert noted == [None, "window", "window"]
        stop(daemon)


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_bandwidth_paces_all_connections_together(
    tmp_path: Path, pki: Pki, config: dict[str, Any], direction: str, keep: Callable[[T], T]
) -> None:
    data = b"x" * 100_000
    server = keep(Upstream(source(data) if direction == "out" else sink))
    config["apps"]["web"]["upstreams"] = [{"address": server.address}]
    config["limits"] = {"default": {f"bandwidth_{direction}": "200kB/s"}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        began = time.monotonic()
        clients = [keep(connect(pki, port)) for _ in range(2)]
        for client in clients:
            if direction == "in":
                client.send(data)
                client.send_close_notify()
        for number, client in enumerate(clients):
            if direction == "out":
                assert client.receive_to_end() == (data, End.CLOSE_NOTIFY)
            else:
                assert server.session(number).wait_end() is End.FIN
                assert len(server.session(number).received) == len(data)
            client.close()
        took = time.monotonic() - began
        # An eighth of a second's worth is free: 25 kB; 200 kB take a second without it.
        assert took > 0.7, f"{took:.2f} s for twice 100 kB at 200 kB/s"
        stop(daemon)


def test_a_lifetime_ends_a_connection(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"max_lifetime": "300ms"}}
    with Daemon(tmp_path, config) as daemon:
        with served(connect(pki, daemon.port())) as client:
            assert client.receive_to_end()[1] in (End.RESET, End.FIN), "not a clean end"
        closed = daemon.wait_event("conn.close")
        assert closed["reason"] == "max_lifetime"
        assert closed["duration_ms"] >= 300
        stop(daemon)


def test_the_oldest_connection_gives_way(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"concurrent": 1, "replace_oldest": True}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        with served(connect(pki, port)) as first, served(connect(pki, port)) as second:
            assert first.receive_to_end()[1] in (End.RESET, End.FIN), "not a clean end"
            second.echo(b"stays")
        assert daemon.wait_event("conn.close", reason="replaced")["client"] == "alice"
        assert not daemon.events("conn.deny")
        stop(daemon)


def test_a_plaintext_app_counts_by_source(
    tmp_path: Path, config: dict[str, Any], upstream: Upstream
) -> None:
    config["limits"] = {"once": {"window": "1/1h"}}
    config["apps"]["raw"] = {
        "listen": "127.0.0.1:0",
        "plaintext": True,
        "limits": "once",
        "upstreams": [{"address": upstream.address}],
    }
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port("raw")
        with plain(port) as first:
            first.sendall(b"x")
            assert read_exactly(first, 1) == b"x"
            with plain(port) as second:
                assert second.recv(1) == b""
        assert daemon.wait_event("conn.deny")["reason"] == "window"
        stop(daemon)


# ---- wider scopes --------------------------------------------------------------------------------


def test_an_apps_limits_hold_its_clients_together(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"concurrent": 5}, "together": {"concurrent": 1}}
    config["apps"]["web"]["app_limits"] = "together"
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        with served(connect(pki, port)), connect(pki, port, pki.bob) as bob:
            assert refused(bob)
        denied = daemon.wait_event("conn.deny")
        assert (denied["client"], denied["reason"], denied["scope"]) == ("bob", "app_full", "application")
        assert denied["fix"] == "raise limits.together.concurrent"
        with connect(pki, port, pki.bob) as bob:
            bob.echo(b"x")  # the place is free again
        stop(daemon)


@pytest.mark.parametrize("app_limits", [None, "many"])
def test_the_nodes_limits_hold_all_apps_together(
    tmp_path: Path, pki: Pki, config: dict[str, Any], app_limits: str | None
) -> None:
    config["limits"] = {"one": {"concurrent": 1}, "many": {"concurrent": 9}}
    config["node"]["limits"] = "one"
    if app_limits is not None:
        config["apps"]["web"]["app_limits"] = app_limits
    config["apps"]["db"] = {**config["apps"]["web"]}
    config["clients"]["alice"]["apps"] = ["web", "db"]
    with Daemon(tmp_path, config) as daemon:
        with served(connect(pki, daemon.port("web"))), connect(pki, daemon.port("db")) as second:
            assert refused(second)
        denied = daemon.wait_event("conn.deny")
        assert (denied["app"], denied["reason"], denied["scope"]) == ("db", "concurrent", "global")
        assert "limits.one, which all clients of the node share" in denied["fix"]
        stop(daemon)


# ---- over a restart ------------------------------------------------------------------------------


def spent(path: Path, limits: LimitClass) -> bool:
    """Whether the file says that alice has no connection left in web."""
    if not path.exists():
        return False
    for entry in json.loads(path.read_bytes())["limits"]:
        if (entry.get("app"), entry.get("client")) == ("web", "alice"):
            manager = limits.manager("alice")
            manager.restore(base64.b64decode(entry["state"]))
            return not manager.connection_opened()
    return False


@pytest.mark.parametrize(
    ("limits", "same"),
    [
        ({"window": "2/1h"}, LimitClass(window=(2, 3600.0))),
        ({"rate": "1/h", "burst": 2}, LimitClass(rate=1 / 3600, burst=2)),
    ],
    ids=["window", "bucket"],
)
def test_a_kill_and_a_restart_forgive_nothing(
    tmp_path: Path, pki: Pki, config: dict[str, Any], limits: dict[str, Any], same: LimitClass
) -> None:
    config["limits"] = {"default": limits}
    config["node"]["limits_file"] = "limits.json"
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert [reach(pki, port) for _ in range(3)] == [True, True, False]
        wait_until(lambda: spent(tmp_path / "limits.json", same), "the file knows")
        daemon.process.kill()
        daemon.wait()
    with Daemon(tmp_path, config) as daemon:
        assert not reach(pki, daemon.port())
        assert daemon.wait_event("limits.restored")["limiters"] == 1
        with connect(pki, daemon.port(), pki.bob) as bob:
            bob.echo(b"x")  # nobody else pays for it
        stop(daemon)


def test_a_stop_writes_what_happened_last(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"window": "1/1h"}}
    config["node"]["limits_file"] = "limits.json"
    with Daemon(tmp_path, config) as daemon:
        assert reach(pki, daemon.port())
        stop(daemon)
    assert spent(tmp_path / "limits.json", LimitClass(window=(1, 3600.0)))
    with Daemon(tmp_path, config) as daemon:
        assert not reach(pki, daemon.port())
        stop(daemon)


def test_a_corrupt_file_is_reported_and_the_service_runs(
    tmp_path: Path, pki: Pki, config: dict[str, Any]
) -> None:
    config["limits"] = {"default": {"window": "1/1h"}}
    config["node"]["limits_file"] = "limits.json"
    (tmp_path / "limits.json").write_bytes(b'{"v":1,"limits":[')
    with Daemon(tmp_path, config) as daemon:
        assert reach(pki, daemon.port())
        told = daemon.wait_event("limits.corrupt")
        assert told["file"] == str(tmp_path / "limits.json")
        assert "limits start with full buckets" in told["message"]
        stop(daemon)
        assert len(daemon.events("limits.corrupt")) == 1
    assert (tmp_path / "limits.json.corrupt").read_bytes() == b'{"v":1,"limits":['


def test_a_limits_file_that_cannot_be_written_stops_the_start(tmp_path: Path, config: dict[str, Any]) -> None:
    config["node"]["limits_file"] = "nowhere/limits.json"
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 1
        assert "node.limits_file: cannot write" in daemon.text()
        assert not daemon.events("ready")


def test_a_start_that_fails_leaves_the_file_alone(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    config["limits"] = {"default": {"window": "1/1h"}}
    config["node"]["limits_file"] = "limits.json"
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert reach(pki, port)
        wait_until(lambda: spent(tmp_path / "limits.json", LimitClass(window=(1, 3600.0))), "written")
        before = (tmp_path / "limits.json").stat().st_ino
        folder = tmp_path / "second"
        folder.mkdir()
        config["apps"]["web"]["listen"] = f"127.0.0.1:{port}"
        config["node"]["limits_file"] = str(tmp_path / "limits.json")
        with Daemon(folder, config) as second:
            assert second.wait() == 1
            assert "Address already in use" in second.text()
        assert (tmp_path / "limits.json").stat().st_ino == before
        stop(daemon)
