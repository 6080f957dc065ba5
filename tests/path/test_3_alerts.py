"""Exact alerts (RFC 8446, 6.2): the engine that can send them names the cause of every refusal."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import timedelta

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context
from kit.fixtures import MakeBalancer
from kit.pki import Identity, Pki
from kit.upstreams import Upstream

import lbcore
from lbcore import PolicyClient

pytestmark = pytest.mark.skipif(
    "openssl" not in lbcore.tls_engines(), reason="openssl: not in this build; install libssl-dev"
)


@pytest.fixture
def lb(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> Balancer:
    """Lets alice in, knows bob, and has carol disabled."""
    return balance(
        upstream,
        engine={"tls_engine": "openssl"},
        policy=[
            PolicyClient("alice", [pki.alice.serial], ["web"]),
            PolicyClient("bob", [pki.bob.serial], ["other"]),
            PolicyClient("carol", [0xCA401], ["web"], disabled=True),
        ],
    )


def alert_of(lb: Balancer, identity: Identity | None, *, early: bytes = b"") -> str:
    """OpenSSL's name of the alert that ended a connection."""
    with TlsClient(lb.port, client_context(lb.pki, identity)) as client, pytest.raises(ssl.SSLError) as told:
        client.handshake()
        if early:
            client.sock.sendall(client.seal(early))
        while client.receive(1):
            pass
    return str(told.value.reason)


@pytest.mark.parametrize(
    ("identity", "alert", "reason"),
    [
        (lambda pki: None, "TLSV13_ALERT_CERTIFICATE_REQUIRED", "no_certificate"),
        (lambda pki: pki.rogue.issue("eve"), "TLSV1_ALERT_UNKNOWN_CA", "unknown_ca"),
        (
            lambda pki: pki.client(after=timedelta(days=-3), lasts=timedelta(days=1)),
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "expired",
        ),
        (lambda pki: pki.client(purpose="server"), "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE", "wrong_purpose"),
        (lambda pki: pki.client(), "SSLV3_ALERT_BAD_CERTIFICATE", "unknown_serial"),
        (lambda pki: pki.client(serial=0xCA401), "SSLV3_ALERT_BAD_CERTIFICATE", "client_disabled"),
        (lambda pki: pki.bob, "SSLV3_ALERT_HANDSHAKE_FAILURE", "app_not_allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_alert_names_the_cause(
    lb: Balancer, upstream: Upstream, pki: Pki, identity: Callable[[Pki], Identity | None], alert: str, reason: str
) -> None:
    assert alert_of(lb, identity(pki)) == alert
    assert lb.record().reason == reason
    assert upstream.accepted == 0
