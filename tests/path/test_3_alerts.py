"""Exact alerts (RFC 8446, 6.2): the engine that can send them names the cause of every refusal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect, outcome
from kit.fixtures import Keep, MakeBalancer
from kit.pki import DAY, SERVER, Identity, Pki
from kit.sockets import End
from kit.upstreams import Upstream
from kit.waiting import wait_until

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


def alert_of(lb: Balancer, identity: Identity | None, *, early: bytes = b"") -> str | None:
    """OpenSSL's name of the alert that ended a connection."""
    with TlsClient(lb.port, client_context(lb.pki, identity)) as client:
        client.handshake()  # as the client sees it: it has not been judged yet
        with contextlib.suppress(OSError):
            client.sock.sendall(client.seal(early))
        client.receive_to_end()
        return client.alert


@pytest.mark.parametrize(
    ("identity", "alert", "reason"),
    [
        (lambda pki: None, "TLSV13_ALERT_CERTIFICATE_REQUIRED", "no_certificate"),
        (lambda pki: pki.rogue.issue("eve"), "TLSV1_ALERT_UNKNOWN_CA", "unknown_ca"),
        (lambda pki: pki.self_signed("alice", pki.alice.serial), "TLSV1_ALERT_UNKNOWN_CA", "unknown_ca"),
        (
            lambda pki: pki.ca.issue("early", starts=DAY, ends=2 * DAY),
            "SSLV3_ALERT_BAD_CERTIFICATE",
            "not_yet_valid",
        ),
        (
            lambda pki: pki.ca.issue("late", starts=-3 * DAY, ends=-DAY),
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "expired",
        ),
        (
            lambda pki: pki.ca.issue("server", usages=SERVER),
            "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
            "wrong_purpose",
        ),
        (lambda pki: pki.client(), "SSLV3_ALERT_BAD_CERTIFICATE", "unknown_serial"),
        (lambda pki: pki.client(serial=0xCA401), "SSLV3_ALERT_BAD_CERTIFICATE", "client_disabled"),
        (lambda pki: pki.bob, "SSLV3_ALERT_HANDSHAKE_FAILURE", "app_not_allowed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_alert_names_the_cause(
    lb: Balancer,
    upstream: Upstream,
    pki: Pki,
    identity: Callable[[Pki], Identity | None],
    alert: str,
    reason: str,
) -> None:
    assert alert_of(lb, identity(pki)) == alert
    assert lb.record().reason == reason
    assert upstream.accepted == 0


def test_a_claimed_name_is_no_client_of_its_own_in_the_sums(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """Whoever is refused in the handshake has not proven that the certificate is his."""
    sums: list[lbcore.RefusalSum] = []
    selection = lbcore.RecordSelection(refusals=0, on_sums=sums.extend)
    numbers = {"carol": 0xCA402, "dave": 0xDA403}
    lb = balance(
        upstream,
        engine={"tls_engine": "openssl", "record_selection": selection},
        policy=[PolicyClient(name, [serial], ["web"], disabled=True) for name, serial in numbers.items()],
    )
    for serial in numbers.values():
        assert alert_of(lb, pki.client(serial=serial)) == "SSLV3_ALERT_BAD_CERTIFICATE"
    wait_until(lambda: sum(found.count for found in sums) == len(numbers), "the second is over")
    assert {(found.app, found.client, found.reason) for found in sums} == {("web", None, "client_disabled")}


def test_an_alert_is_readable_after_64_kb(lb: Balancer, pki: Pki) -> None:
    """Closing with unread bytes in the socket would send a reset that overtakes it."""
    seen = [alert_of(lb, pki.bob, early=bytes(65536)) for _ in range(100)]
    assert seen.count("SSLV3_ALERT_HANDSHAKE_FAILURE") >= 99


def test_a_custom_authorizer_decides_after_the_handshake(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """Then there is no alert left to send, and the refusal is a reset as with any engine."""
    lb = balance(upstream, engine={"tls_engine": "openssl"})
    assert outcome(lb.port, client_context(pki, pki.bob)) is End.RESET
    assert lb.record().reason == "unknown_serial"


def test_who_waits_for_an_alert_to_be_read_is_still_a_stranger(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    """Sockets that linger have descriptors like all others: they count, and the oldest goes for another."""
    most = 4
    lb = balance(upstream, engine={"tls_engine": "openssl", "workers": 1, "max_unauthenticated": most})
    context = client_context(pki, pki.rogue.issue("eve"))
    for number in range(5 * most):
        keep(TlsClient(lb.port, context)).handshake()
        lb.records.wait(number + 1, reason="unknown_ca")
        assert lb.engine.stats()["unauthenticated"] <= most
    assert lb.engine.stats()["workers"][0]["open"] <= most
    with connect(pki, lb.port) as client:
        client.echo(b"served at once")
    assert lb.records.all(reason="unauthenticated_full") == []
