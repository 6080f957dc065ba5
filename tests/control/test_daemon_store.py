"""Clients that a running `lbctl` finds elsewhere: an HTTPS store, and claims in certificates."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from kit.clients import TlsClient, connect
from kit.commands import lbctl_inside, openssl
from kit.daemon import Daemon, configuration
from kit.pki import Identity, Pki
from kit.store import StoreServer
from kit.upstreams import Upstream
from kit.waiting import wait_until


@pytest.fixture
def config(pki: Pki) -> Iterator[dict[str, Any]]:
    pki.server.key.chmod(0o600)
    with Upstream() as upstream:
        yield configuration(pki, upstream.address, certificate_claims=True)


@pytest.fixture
def store(pki: Pki, config: dict[str, Any]) -> Iterator[StoreServer]:
    with StoreServer(pki) as server:
        config["client_store"] = {"url": server.url, "ca": str(pki.ca.cert), "timeout": "500ms"}
        del config["certificate_claims"]
        yield server


def stop(daemon: Daemon) -> None:
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def digits(identity: Identity) -> str:
    """As the store is asked: whole octets, as `openssl x509 -serial` prints them."""
    size = (identity.serial.bit_length() + 7) // 8
    return identity.serial.to_bytes(size, "big").hex().upper()


def reach(pki: Pki, port: int, identity: Identity) -> bool:
    """Whether this client is served; if not, it got nothing."""
    with connect(pki, port, identity) as client:
        try:
            client.send(b"x")
            return client.receive(1) == b"x"
        except (AssertionError, OSError):
            assert received(client) == b""
            return False


def received(client: TlsClient) -> bytes:
    """What comes until the end, however that comes: a limit and a verdict end differently."""
    data, _ = client.receive_to_end()
    return data


# ---- the store -----------------------------------------------------------------------------------


def test_whom_the_store_knows_is_let_in(
    tmp_path: Path, pki: Pki, config: dict[str, Any], store: StoreServer
) -> None:
    carol, dave = pki.client(serial=0x0A1B2C), pki.client()
    store.records["0A1B2C"] = {"client": "carol", "apps": ["web"]}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert reach(pki, port, carol)
        assert daemon.wait_event("conn.close")["client"] == "carol"
        assert not reach(pki, port, dave)
        denied = daemon.wait_event("conn.deny")
        assert (denied["stage"], denied["reason"]) == ("authorize", "unknown_serial")
        assert store.asked == ["0A1B2C", digits(dave)]
        assert reach(pki, port, carol)
        assert reach(pki, port, pki.alice), "the configuration knows her"
        assert store.asked == ["0A1B2C", digits(dave)], "remembered, and never asked about alice"
        stop(daemon)


def test_another_app_and_disabled(
    tmp_path: Path, pki: Pki, config: dict[str, Any], store: StoreServer
) -> None:
    carol, dave = pki.client(), pki.client()
    store.records[digits(carol)] = {"client": "carol", "apps": ["elsewhere"]}
    store.records[digits(dave)] = {"client": "dave", "apps": ["web"], "disabled": True}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert not reach(pki, port, carol)
        assert not reach(pki, port, dave)
        denied = daemon.wait_event("conn.deny", client="carol")
        assert denied["reason"] == "app_not_allowed"
        assert denied["fix"] == 'add "web" to what it may use in the client store or its certificate'
        denied = daemon.wait_event("conn.deny", client="dave")
        assert (denied["reason"], denied["fix"]) == ("client_disabled", "the client store says so")
        stop(daemon)


def test_a_store_that_goes_away_keeps_out_whom_it_alone_knows(
    tmp_path: Path, pki: Pki, config: dict[str, Any], store: StoreServer
) -> None:
    config["client_store"] |= {"ttl": "50ms"}
    carol = pki.client()
    store.records[digits(carol)] = {"client": "carol", "apps": ["web"]}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert reach(pki, port, carol)
        store.answer = lambda request: request.send(503)
        wait_until(lambda: not reach(pki, port, carol), "refused")
        denied = daemon.wait_event("conn.deny")
        assert (denied["stage"], denied["reason"]) == ("authorize", "authz_error")
        assert daemon.wait_event("client_store.failed")["message"] == "HTTP status 503"
        wait_until(lambda: reach(pki, port, carol) or daemon.events("client_store.down"), "it counts as down")
        assert reach(pki, port, pki.alice), "the configuration knows her"
        store.answer = store.look_up
        wait_until(lambda: reach(pki, port, carol), "served again")
        daemon.wait_event("client_store.up")
        stop(daemon)


def test_stale_answers_serve_on(
    tmp_path: Path, pki: Pki, config: dict[str, Any], store: StoreServer
) -> None:
    config["client_store"] |= {"ttl": "50ms", "on_failure": "stale", "max_stale": "1h"}
    carol, dave = pki.client(), pki.client()
    store.records[digits(carol)] = {"client": "carol", "apps": ["web"]}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert reach(pki, port, carol)
        store.answer = lambda request: request.send(500)

        def asked_again() -> int:
            assert reach(pki, port, carol)
            return len(store.asked) > 1

        wait_until(asked_again, "a question after the ttl")
        assert not reach(pki, port, dave), "never known"
        stop(daemon)


def test_a_store_that_hangs_keeps_nobody_else_waiting(
    tmp_path: Path, pki: Pki, config: dict[str, Any], store: StoreServer
) -> None:
    strangers = [pki.client() for _ in range(20)]
    store.answer = store.hang
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        with ExitStack() as opened:
            waiting = [opened.enter_context(connect(pki, port, stranger)) for stranger in strangers]
            wait_until(lambda: len(store.asked) >= 3, "questions that hang")
            assert reach(pki, port, pki.alice)
            assert all(received(client) == b"" for client in waiting)
        wait_until(lambda: len(daemon.events("conn.deny")) == len(waiting), "all refused")
        assert {one["reason"] for one in daemon.events("conn.deny")} == {"authz_error"}
        stop(daemon)


def test_limits_of_the_store_hold(
    tmp_path: Path, pki: Pki, config: dict[str, Any], store: StoreServer
) -> None:
    config["limits"] = {"one": {"concurrent": 1}}
    carol = pki.client()
    store.records[digits(carol)] = {"client": "carol", "apps": ["web"], "limits": {"web": "one"}}
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        with connect(pki, port, carol) as first:
            first.echo(b"x")
            assert not reach(pki, port, carol)
        denied = daemon.wait_event("conn.deny")
        assert (denied["client"], denied["reason"]) == ("carol", "concurrent")
        wait_until(lambda: reach(pki, port, carol), "the slot is free again")
        stop(daemon)


def test_a_store_whose_ca_cannot_be_read(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    config["client_store"] = {"url": "https://127.0.0.1:1/{serial}", "ca": str(tmp_path / "ca.pem")}
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() != 0
        assert "client_store" in daemon.text()


# ---- claims --------------------------------------------------------------------------------------


def test_a_certificate_says_who_its_client_is(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    erin = pki.ca.issue("x", addresses=["urn:lbctl:client:erin", "urn:lbctl:app:web"])
    vague = pki.ca.issue("x", addresses=["urn:lbctl:app:web"])
    with Daemon(tmp_path, config) as daemon:
        port = daemon.port()
        assert reach(pki, port, erin)
        assert daemon.wait_event("conn.close")["client"] == "erin"
        assert not reach(pki, port, vague)
        denied = daemon.wait_event("conn.deny")
        assert denied["reason"] == "unknown_serial"
        assert "its claims do not count: apps, but no client" in denied["fix"]
        stop(daemon)


def test_claims_count_for_nothing_by_default(tmp_path: Path, pki: Pki, config: dict[str, Any]) -> None:
    del config["certificate_claims"]
    erin = pki.ca.issue("x", addresses=["urn:lbctl:client:erin", "urn:lbctl:app:web"])
    with Daemon(tmp_path, config) as daemon:
        assert not reach(pki, daemon.port(), erin)
        assert daemon.wait_event("conn.deny")["reason"] == "unknown_serial"
        stop(daemon)


def test_cert_issue_writes_claims(tmp_path: Path) -> None:
    assert lbctl_inside("cert", "init", cwd=tmp_path).code == 0
    ran = lbctl_inside("cert", "issue", "erin", "--app", "web", "--app", "db:batch", cwd=tmp_path)
    assert ran.code == 0
    assert "certificate_claims: true" in ran.out
    text = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", tmp_path / "certs/erin.pem")
    assert re.findall(r"URI:(\S+?)(?:,|\s|$)", text) == [
        "urn:lbctl:client:erin",
        "urn:lbctl:app:web",
        "urn:lbctl:app:db:batch",
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--app", "web", "--server"), "claims nothing"),
        (("--app", ""), "--app"),
        (("--app", "a b"), "no spaces"),
        (("--app", "web:a:b"), "a colon cannot be given"),
        (("--app", "web:a", "--app", "web:b"), "another class already"),
    ],
)
def test_cert_issue_refuses_claims_that_cannot_be(
    tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    assert lbctl_inside("cert", "init", cwd=tmp_path).code == 0
    ran = lbctl_inside("cert", "issue", "erin", *arguments, cwd=tmp_path)
    assert ran.code != 0
    assert problem in " ".join(ran.err.split())
    assert not (tmp_path / "certs/erin.pem").exists()
