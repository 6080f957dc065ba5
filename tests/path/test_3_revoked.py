"""Stage 3, authenticate: revocation lists of the CA, on both engines alike."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from kit.balancer import TLS_ENGINE, Balancer
from kit.clients import TlsClient, client_context, connect, outcome, s_client
from kit.fixtures import MakeBalancer
from kit.pki import DAY, Identity, Pki
from kit.servers import require_server
from kit.sockets import End
from kit.upstreams import Upstream

import lbcore

Listen = Callable[[Any], int]


@pytest.fixture
def lb(balance: MakeBalancer, upstream: Upstream) -> Balancer:
    return balance(upstream)


@pytest.fixture
def listen(lb: Balancer, pki: Pki) -> Listen:
    """One more port of the application, with these lists."""

    def add(crl: Any) -> int:
        tls = lbcore.ServerTLS(cert=pki.server.cert, key=pki.server.key, client_ca=pki.ca.cert, crl=crl)
        return lb.engine.listen(lb.app, "127.0.0.1:0", tls=tls, authorize=lb.policy).port

    return add


def refused(lb: Balancer, port: int, identity: Identity, reason: str) -> None:
    assert outcome(port, client_context(lb.pki, identity)) in (End.RESET, End.ALERT)
    record = lb.records.wait(reason=reason, serial=identity.serial)[-1]
    assert (record.event, record.stage) == ("conn.deny", "authenticate")
    assert record.upstream is None


def served(lb: Balancer, port: int, identity: Identity) -> None:
    lb.policy.allow(identity, "web")
    with connect(lb.pki, port, identity) as client:
        client.echo(b"x")


def test_who_is_on_the_list_stays_out(lb: Balancer, listen: Listen, upstream: Upstream, pki: Pki) -> None:
    port = listen(pki.ca.crl(pki.bob.serial))
    lb.policy.allow(pki.bob, "web")
    refused(lb, port, pki.bob, "revoked")
    assert upstream.accepted == 0
    assert lb.policy.asked == [], "nobody is asked about who was revoked"
    served(lb, port, pki.alice)


@pytest.mark.skipif(TLS_ENGINE != "openssl", reason="the other engine sends no alerts after the handshake")
def test_the_alert_says_so(lb: Balancer, listen: Listen, pki: Pki) -> None:
    port = listen(pki.ca.crl(pki.bob.serial))
    with TlsClient(port, client_context(pki, pki.bob)) as client:
        client.handshake()
        assert client.receive_to_end() == (b"", End.ALERT)
        assert client.alert == "SSLV3_ALERT_CERTIFICATE_REVOKED"
    seen = s_client(require_server("openssl"), port, "-cert", str(pki.bob.cert), "-key", str(pki.bob.key))
    assert "alert certificate revoked" in seen


def test_a_cached_verdict_does_not_help(lb: Balancer, listen: Listen, pki: Pki) -> None:
    """The verdict of another port, and one given before the lists were there, are not this port's."""
    served(lb, lb.port, pki.bob)
    refused(lb, listen(pki.ca.crl(pki.bob.serial)), pki.bob, "revoked")
    served(lb, lb.port, pki.bob)


def test_serials_of_every_length(lb: Balancer, listen: Listen, pki: Pki) -> None:
    numbers = [1, 0x7F, 0x80, 0xFF00, 2**64, 2**159 - 1]
    port = listen(pki.ca.crl(*numbers))
    for number in numbers:
        refused(lb, port, pki.client(serial=number), "revoked")
    for number in (2, 0x81, 0xFF, 2**64 + 1, 2**158):
        served(lb, port, pki.client(serial=number))


def test_many_lists_of_many_entries(lb: Balancer, listen: Listen, pki: Pki, tmp_path: Path) -> None:
    """Paths and bytes, one file with two lists; all of them count."""
    file = tmp_path / "two.crl"
    file.write_bytes(pki.ca.crl(*range(10**6, 10**6 + 10_000)) + b"and\n" + pki.ca.crl(pki.bob.serial))
    first, last = pki.client(serial=10**6), pki.client(serial=10**6 + 9_999)
    port = listen([str(file), pki.ca.crl(0xABC1), file])
    for identity in (first, last, pki.bob, pki.client(serial=0xABC1)):
        refused(lb, port, identity, "revoked")
    served(lb, port, pki.alice)


def test_an_empty_list_refuses_nobody(lb: Balancer, listen: Listen, pki: Pki) -> None:
    served(lb, listen(pki.ca.crl()), pki.alice)


def test_a_list_that_ends_while_it_is_in_use_refuses_everybody(
    lb: Balancer, listen: Listen, pki: Pki
) -> None:
    """Dates in a list have whole seconds."""
    port = listen([pki.ca.crl(ends=dt.timedelta(seconds=2.5)), pki.ca.crl()])
    open_before = connect(pki, port, pki.alice)
    open_before.echo(b"x")
    end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=5)
    while dt.datetime.now(dt.UTC) < end and not lb.records.all(reason="crl_expired"):
        with TlsClient(port, client_context(pki, pki.alice)) as client:
            try:
                client.handshake()
                client.is_served()
            except (OSError, AssertionError):
                continue
    refused(lb, port, pki.alice, "crl_expired")
    with open_before:
        open_before.echo(b"who is in stays in")


def test_a_list_without_a_real_end(lb: Balancer, listen: Listen, pki: Pki) -> None:
    """More nanoseconds than 64 bits count; none is ever reached."""
    to_the_year_9999 = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC) - dt.datetime.now(dt.UTC)
    port = listen(pki.ca.crl(pki.bob.serial, ends=to_the_year_9999))
    refused(lb, port, pki.bob, "revoked")
    served(lb, port, pki.alice)


DELTA = x509.DeltaCRLIndicator(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda pki: b"nothing", "crl: no certificate revocation list in PEM"),
        (lambda pki: pki.ca.cert.read_bytes(), "crl: no certificate revocation list in PEM"),
        (lambda pki: pki.ca.crl().replace(b"M", b"N", 1), "crl: not a usable certificate revocation list"),
        (lambda pki: pki.rogue.crl(), "crl: not signed by client_ca"),
        (lambda pki: pki.sub_ca.crl(), "crl: not signed by client_ca"),
        (lambda pki: pki.ca.crl(extension=DELTA), "crl: a partial list"),
        (lambda pki: pki.ca.crl(starts=-2 * DAY, ends=-DAY), r"crl: expired on 20.*; get a newer list"),
        (lambda pki: pki.ca.crl(starts=DAY), r"crl: begins on 20.*; see that the clock is right"),
    ],
    ids=["text", "certificate", "damaged", "rogue", "sub-ca", "delta", "expired", "future"],
)
def test_a_list_that_cannot_be_believed_is_an_error_at_once(
    listen: Listen, pki: Pki, make: Callable[[Pki], bytes], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        listen(make(pki))
    file = tmp_path / "some.crl"
    file.write_bytes(make(pki))
    with pytest.raises(ValueError, match=r"crl: .*some\.crl: "):
        listen([pki.ca.crl(), file])


def test_a_file_that_is_not_there(listen: Listen, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        listen(tmp_path / "none.crl")


@pytest.mark.parametrize("crl", [5, [], [5], {}, [None]])
def test_wrong_arguments_name_themselves(pki: Pki, crl: Any) -> None:
    with pytest.raises(TypeError, match=r"^crl: "):
        lbcore.ServerTLS(cert=pki.server.cert, key=pki.server.key, client_ca=pki.ca.cert, crl=crl)
