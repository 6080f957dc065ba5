"""`lbctl run` and its upstreams: checks, names, sockets, TLS and PROXY headers by the configuration."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.clients import connect, plain
from kit.daemon import Daemon
from kit.daemon import configuration as with_tls
from kit.dns_server import DnsServer, failing
from kit.pki import Pki
from kit.proxy_header import CLIENT, Header, read_header
from kit.sockets import read_exactly, read_to_end
from kit.tls_upstream import tls_upstream
from kit.upstreams import Refuser, Session, Upstream, echo
from kit.waiting import wait_until

QUICK = {"interval": "200ms", "timeout": "200ms", "rise": 2, "fall": 2}


def configuration(
    *upstreams: dict[str, Any], node: dict[str, Any] | None = None, **app: Any
) -> dict[str, Any]:
    """One plaintext app `web`."""
    section = {"listen": "127.0.0.1:0", "plaintext": True, "upstreams": list(upstreams), **app}
    settings = {"name": "lb-1", "workers": 1, "drain_timeout": "1s", **(node or {})}
    return {"version": 1, "node": settings, "apps": {"web": section}}


def at(*servers: Upstream | Refuser) -> list[dict[str, Any]]:
    return [{"address": server.address} for server in servers]


def served(port: int) -> bool:
    """Whether a connection echoes."""
    with plain(port) as client, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        client.sendall(b"x")
        return client.recv(1) == b"x"
    return False


def stop(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def states(daemon: Daemon, address: str) -> list[str]:
    """What it said of an upstream, in order."""
    return [event["state"] for event in daemon.events("upstream", upstream=address)]


@pytest.fixture
def refuser() -> Iterator[Refuser]:
    with contextlib.closing(Refuser()) as port:
        yield port


@pytest.fixture
def names() -> Iterator[DnsServer]:
    with DnsServer() as server:
        yield server


# ---- failures ------------------------------------------------------------------------------------


def test_a_quarantine_is_told_and_so_is_its_end(tmp_path: Path, refuser: Refuser) -> None:
    passive = {"failures": 1, "eject": "300ms"}
    with Upstream() as good:
        config = configuration(*at(good, refuser), health={"passive": passive})
        with Daemon(tmp_path, config) as daemon:
            port = daemon.port()
            for _ in range(2):  # ties rotate: one of the two picks the dead one first
                assert served(port)
            daemon.wait_event("upstream", upstream=refuser.address, state="QUARANTINED")
            with refuser.revive():
                wait_until(lambda: served(port) and daemon.events("upstream", state="UP"), "it is back")
            assert states(daemon, refuser.address) == ["QUARANTINED", "UP"]
            stop(daemon)


# ---- checks --------------------------------------------------------------------------------------


def test_a_check_finds_one_down_and_up_again_without_clients(tmp_path: Path, refuser: Refuser) -> None:
    config = configuration(*at(refuser), health={"active": QUICK})
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        down = daemon.wait_event("upstream", upstream=refuser.address, state="DOWN")
        assert "refused" in down["message"]
        daemon.wait_event("app", app="web", state="DOWN")
        assert not served(port)
        assert daemon.wait_event("conn.deny")["reason"] == "no_upstream"
        with refuser.revive():
            daemon.wait_event("app", app="web", state="UP")
            assert served(port)
        assert states(daemon, refuser.address)[:2] == ["DOWN", "UP"]
        stop(daemon)


@pytest.mark.parametrize(("policy", "reason"), [("keep", "client_closed"), ("cut", "upstream_down")])
def test_open_connections_when_an_upstream_goes_down(tmp_path: Path, policy: str, reason: str) -> None:
    """It still serves those it has, and says what no check expects any more."""
    sick = threading.Event()

    def script(session: Session) -> None:
        session.sock.sendall(b"no" if sick.is_set() else b"ok")
        echo(session)

    with Upstream(script) as server:
        config = configuration(*at(server), on_down=policy, health={"active": {**QUICK, "expect": "ok"}})
        with Daemon(tmp_path, config) as daemon, plain(daemon.port()) as client:
            assert client.recv(2) == b"ok"
            sick.set()
            down = daemon.wait_event("upstream", state="DOWN")
            fate = {"keep": "kept", "cut": "cut"}[policy]
            assert down["message"].endswith(f" (1 open connections {fate})")
            if policy == "keep":
                client.sendall(b"x")
                assert client.recv(1) == b"x"
                client.close()
            else:
                assert read_to_end(client)[1] is not None
            assert daemon.wait_event("conn.close")["reason"] == reason
            stop(daemon)


def test_a_passed_check_ends_a_quarantine(tmp_path: Path) -> None:
    """The server resets clients and not checks, which say what it wants to hear."""

    def script(session: Session) -> None:
        if session.sock.recv(5) == b"check":
            session.sock.sendall(b"ok")

    check = {**QUICK, "send": "check", "expect": "ok"}
    passive = {"failures": 1, "eject": "1h", "max_ejected": "100%"}
    with contextlib.closing(Refuser()) as port_of, contextlib.ExitStack() as later:
        health = {"active": {**check, "fall": 1000}, "passive": passive}
        with Daemon(tmp_path, configuration(*at(port_of), health=health)) as daemon:
            assert not served(daemon.port())
            daemon.wait_event("upstream", state="QUARANTINED")
            later.enter_context(port_of.revive(script))
            daemon.wait_event("upstream", state="UP")
            stop(daemon)


def test_a_check_through_tls_wants_the_right_certificate(tmp_path: Path, pki: Pki) -> None:
    pki.alice.key.chmod(0o600)
    tls = {"ca": str(pki.ca.cert), "cert": str(pki.alice.cert), "key": str(pki.alice.key)}
    with tls_upstream(pki, wants_certificate=True) as good, tls_upstream(pki, identity=pki.bob) as bad:
        config = configuration(*at(good, bad), upstream_tls=tls, health={"active": {**QUICK, "type": "tls"}})
        with Daemon(tmp_path, config) as daemon:
            daemon.wait_event("upstream", upstream=bad.address, state="DOWN")
            assert all(served(daemon.port()) for _ in range(4))
            assert states(daemon, good.address) == []
            stop(daemon)


def test_checks_say_the_proxy_header_as_connections_do(tmp_path: Path) -> None:
    headers: list[Header] = []

    def script(session: Session) -> None:
        headers.append(read_header(session.sock))
        echo(session)

    with Upstream(script) as server:
        config = configuration(*at(server), proxy_protocol="v2", health={"active": QUICK})
        with Daemon(tmp_path, config) as daemon, plain(daemon.port()) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            wait_until(lambda: any(header.source is None for header in headers), "a check")
            source = "{}:{}".format(*client.getsockname())
            assert [header.source for header in headers if header.source] == [source]
            assert states(daemon, server.address) == []
            client.close()
            stop(daemon)


# ---- places --------------------------------------------------------------------------------------


def test_a_unix_socket(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "web.sock"))
    with Upstream(listener=listener):
        config = configuration({"address": "unix:web.sock"}, health={"active": QUICK})
        with Daemon(tmp_path, config) as daemon:
            assert served(daemon.port())
            assert daemon.events("upstream") == []
            stop(daemon)


def named(server: DnsServer, *upstreams: dict[str, Any], **app: Any) -> dict[str, Any]:
    return configuration(*upstreams, node={"name_servers": [server.address]}, **app)


def test_a_name_is_looked_up_at_the_start_and_at_its_ttl(tmp_path: Path, names: DnsServer) -> None:
    with contextlib.closing(Refuser()) as taken, taken.revive() as first:
        listener = socket.socket()
        listener.bind(("127.0.0.2", first.port))
        with Upstream(host="127.0.0.2", listener=listener) as second:
            names.put("web.internal.", "A", "127.0.0.1", ttl=1)
            config = named(names, {"dns": "web.internal", "port": first.port}, on_remove="cut")
            with Daemon(tmp_path, config) as daemon, plain(daemon.port()) as client:
                client.sendall(b"x")
                assert client.recv(1) == b"x"
                names.put("web.internal.", "A", "127.0.0.2", ttl=1)
                daemon.wait_event("upstream", upstream=second.address, state="ADDED")
                daemon.wait_event("upstream", upstream=first.address, state="REMOVED")
                assert read_to_end(client)[1] is not None
                assert daemon.wait_event("conn.close")["reason"] == "drained"
                assert served(daemon.port())
                assert second.accepted == 1
                names.behave("web.internal.", failing)
                daemon.wait_event("names", state="FAILED")
                assert served(daemon.port())
                names.behave("web.internal.", None)
                daemon.wait_event("names", state="OK")
                assert len(daemon.events("names")) == 2
                stop(daemon)


def test_records_of_a_service_bring_ports_and_weights(tmp_path: Path, names: DnsServer) -> None:
    with Upstream() as heavy, Upstream() as light:
        names.put(
            "_web._tcp.internal.", "SRV", f"0 3 {heavy.port} a.internal.", f"0 1 {light.port} a.internal."
        )
        names.put("a.internal.", "A", "127.0.0.1")
        with Daemon(tmp_path, named(names, {"srv": "_web._tcp.internal"})) as daemon:
            with contextlib.ExitStack() as stack:
                for _ in range(8):
                    client = stack.enter_context(plain(daemon.port()))
                    client.sendall(b"x")
                    assert client.recv(1) == b"x"
                assert (heavy.accepted, light.accepted) == (6, 2)
            stop(daemon)


def test_without_an_answer_clients_are_refused(tmp_path: Path, names: DnsServer) -> None:
    with Upstream() as server:
        names.behave("web.internal.", failing)
        with Daemon(tmp_path, named(names, {"dns": "web.internal", "port": server.port})) as daemon:
            assert not served(daemon.port())
            assert daemon.wait_event("conn.deny")["reason"] == "no_upstream"
            daemon.wait_event("app", state="DOWN")
            names.put("web.internal.", "A", "127.0.0.1")
            names.behave("web.internal.", None)
            daemon.wait_event("app", state="UP")
            assert served(daemon.port())
            stop(daemon)


# ---- alerts --------------------------------------------------------------------------------------


def hook(folder: Path) -> list[str]:
    """A program that writes each alert into a file."""
    program = folder / "on-alert"
    program.write_text(f"#!/bin/sh\ncat >>{folder}/alerts\n")
    program.chmod(0o700)
    return [str(program)]


def alerts(folder: Path) -> list[dict[str, Any]]:
    path = folder / "alerts"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_what_becomes_of_upstreams_is_alerted(tmp_path: Path, refuser: Refuser) -> None:
    config = configuration(*at(refuser), health={"active": QUICK})
    config["alerts"] = {"command": hook(tmp_path), "min_interval": "1s"}
    with Daemon(tmp_path, config) as daemon:
        daemon.wait_event("app", state="DOWN")
        with refuser.revive():
            kinds = ["upstream_down", "app_down", "upstream_recovered", "app_recovered"]
            wait_until(lambda: [alert["alert"] for alert in alerts(tmp_path)] == kinds, "four alerts")
            assert [alert.get("upstream") for alert in alerts(tmp_path)] == [refuser.address, None] * 2
        stop(daemon)


def test_certificates_that_end_are_alerted(tmp_path: Path, pki: Pki) -> None:
    """Those of files, and those that clients show: `pki`'s end within a month."""
    pki.server.key.chmod(0o600)
    with Upstream() as server:
        config = with_tls(pki, server.address, alerts={"command": hook(tmp_path)})
        with Daemon(tmp_path, config) as daemon:
            for _ in range(2):
                with connect(pki, daemon.port()) as client:
                    client.echo(b"hello")
            wait_until(lambda: any(alert.get("client") for alert in alerts(tmp_path)), "the client's")
            stop(daemon)
        told = alerts(tmp_path)
        assert {alert["alert"] for alert in told} == {"certificate_expiry"}
        assert sorted(alert.get("file", "client") for alert in told) == sorted(
            ["client", str(pki.server.cert), str(pki.ca.cert)]
        )
        assert len(daemon.events("certificate", client="alice")) == 1


# ---- who the client is ---------------------------------------------------------------------------


def test_an_upstream_over_tls_learns_the_client(tmp_path: Path, pki: Pki) -> None:
    headers: list[Header] = []
    with tls_upstream(pki, before=lambda session: headers.append(read_header(session.sock))) as server:
        pki.server.key.chmod(0o600)
        config = with_tls(pki, server.address)
        config["apps"]["web"] |= {"upstream_tls": {"ca": str(pki.ca.cert)}, "proxy_protocol": "v2+tls"}
        with Daemon(tmp_path, config) as daemon:
            with connect(pki, daemon.port()) as client:
                client.echo(b"hello")
            assert headers[0].fields[CLIENT] == b"alice"
            stop(daemon)


def test_a_wrong_certificate_of_an_upstream_is_a_refusal_of_its_own(tmp_path: Path, pki: Pki) -> None:
    with tls_upstream(pki, identity=pki.bob) as server:
        config = configuration(*at(server), upstream_tls={"ca": str(pki.ca.cert)}, connect={"attempts": 1})
        with Daemon(tmp_path, config) as daemon:
            assert not served(daemon.port())
            denied = daemon.wait_event("conn.deny")
            assert denied["reason"] == "upstream_tls"
            assert "apps.web.upstream_tls" in denied["fix"]
            stop(daemon)


@pytest.mark.parametrize(("listed", "believed"), [("127.0.0.0/8", True), ("10.0.0.0/8", False)])
def test_a_balancer_in_front_says_who_comes(tmp_path: Path, listed: str, believed: bool) -> None:
    header = b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n"
    with Upstream() as server:
        config = configuration(*at(server), proxy_protocol_from=[listed])
        with Daemon(tmp_path, config) as daemon:
            with plain(daemon.port()) as client:
                client.sendall(header + b"x")
                expected = b"x" if believed else header + b"x"
                assert read_exactly(client, len(expected)) == expected
            closed = daemon.wait_event("conn.close")
            assert closed["reason"] == "client_closed"
            assert (closed["src"] == "192.0.2.7:1234") == believed
            stop(daemon)
