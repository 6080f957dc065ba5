"""Stage 3, authenticate: a certificate that was let in before is known by every byte of it, and has to be
current and in the hands of its owner as on the first day."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect, outcome
from kit.fixtures import MakeBalancer
from kit.pki import Authority, Identity, Pki
from kit.records import LastFlight, end_of_record
from kit.sockets import End
from kit.upstreams import Upstream
from kit.waiting import wait_until

import lbcore

CHANGE_CIPHER_SPEC = 20  # RFC 8446, D.4: says nothing, for the sake of old equipment
SHORT = dt.timedelta(seconds=6)  # dates in a certificate have whole seconds


@pytest.fixture
def lb(balance: MakeBalancer, upstream: Upstream) -> Balancer:
    return balance(upstream)


def seen(lb: Balancer, identity: Identity, port: int | None = None) -> None:
    """Lets it in twice; the second time nobody is asked any more."""
    lb.policy.allow(identity, "web")
    for _ in range(2):
        with connect(lb.pki, port or lb.port, identity) as client:
            client.echo(b"x")
    assert len(lb.policy.asked) == 1


def refused(lb: Balancer, identity: Identity, port: int | None = None) -> str:
    """Why it is not let in now."""
    known = len(lb.records.all(event="conn.deny"))
    assert outcome(port or lb.port, client_context(lb.pki, identity)) in (End.RESET, End.ALERT)
    record: lbcore.Record = lb.records.wait(known + 1, event="conn.deny")[-1]
    assert (record.stage, record.client, record.upstream) == ("authenticate", None, None)
    assert len(lb.policy.asked) == 1
    return record.reason


def is_over(moment: dt.datetime) -> Callable[[], bool]:
    return lambda: dt.datetime.now(dt.UTC) > moment


@pytest.mark.slow
def test_its_last_second_is_its_last(lb: Balancer, pki: Pki) -> None:
    brief = pki.ca.issue("brief", ends=SHORT)
    seen(lb, brief)
    wait_until(is_over(x509.load_der_x509_certificate(brief.der).not_valid_after_utc), "it is over")
    assert refused(lb, brief) == "expired"


@pytest.mark.slow
def test_nor_does_it_outlive_its_ca(lb: Balancer, pki: Pki, tmp_path: Path) -> None:
    ca = Authority(tmp_path, "brief-ca", ends=SHORT)
    tls = lbcore.ServerTLS(cert=pki.server.cert, key=pki.server.key, client_ca=ca.cert)
    port = lb.engine.listen(lb.app, "127.0.0.1:0", tls=tls, authorize=lb.policy).port
    longer = ca.issue("longer")
    seen(lb, longer, port)
    wait_until(is_over(ca.certificate.not_valid_after_utc), "its CA is over")
    assert refused(lb, longer, port) == "expired"
    other = pki.ca.issue("of the other CA")
    assert refused(lb, other, port) == "unknown_ca"


@pytest.mark.parametrize("at", [-1, 60], ids=["the signature", "what is signed"])
def test_a_copy_with_one_bit_changed_is_a_forgery(lb: Balancer, pki: Pki, at: int) -> None:
    seen(lb, pki.alice)
    forged = bytearray(pki.alice.der)
    forged[at] ^= 1
    pem = base64.encodebytes(bytes(forged)).decode()
    cert = pki.alice.cert.with_name("forged.pem")
    cert.write_text(f"-----BEGIN CERTIFICATE-----\n{pem}-----END CERTIFICATE-----\n")
    reason = refused(lb, Identity("forged", cert, pki.alice.key, pki.alice.serial, bytes(forged)))
    assert reason in ("unknown_ca", "bad_certificate")


def test_whoever_shows_it_must_have_its_key(lb: Balancer, pki: Pki, tmp_path: Path) -> None:
    """The certificate is sent in the clear by nobody, but everybody it was shown to has a copy."""
    seen(lb, pki.alice)
    key = tmp_path / "thief.key"
    key.write_bytes(key_with_the_public_half_of(pki.alice))
    thief = Identity("thief", pki.alice.cert, key, pki.alice.serial, pki.alice.der)
    assert refused(lb, thief) == "bad_certificate"


def test_a_new_policy_between_its_certificate_and_its_proof(lb: Balancer, pki: Pki) -> None:
    """What was known when the certificate came is forgotten when the handshake is done."""
    seen(lb, pki.alice)
    with TlsClient(lb.port, client_context(pki, pki.alice)) as client:
        flight = client.last_flight()
        at = end_of_record(flight, end_of_record(flight, 0))
        assert flight[0] == CHANGE_CIPHER_SPEC
        assert at < len(flight), "the certificate has a record of its own"
        client.sock.sendall(flight[:at])
        lb.engine.set_policy(None)  # acknowledged by a worker that has read what was there before
        client.sock.sendall(flight[at:])
        client.echo(b"x")
    assert len(lb.policy.asked) == 2


Shape = Callable[[bytes, bytes, bytes], list[bytes]]


def in_sevens(*messages: bytes) -> list[bytes]:
    flight = b"".join(messages)
    return [flight[at : at + 7] for at in range(0, len(flight), 7)]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "shape",
    [lambda *messages: [b"".join(messages)], in_sevens],
    ids=["all in one record", "seven bytes a record"],
)
def test_its_proof_may_come_with_it_or_in_pieces(
    lb: Balancer, pki: Pki, tmp_path: Path, shape: Shape, known: bool
) -> None:
    if known:
        seen(lb, pki.alice)
    with shaped(lb, pki, tmp_path, shape) as client:
        client.echo(b"x")


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        lambda shown, proof, end: [shown, shown, proof, end],
        lambda shown, proof, end: [shown + shown + proof + end],
        lambda shown, proof, end: [shown, end],
        lambda shown, proof, end: [proof, shown, end],
        lambda shown, proof, end: [end],
    ],
    ids=["shown twice", "twice in one record", "no proof", "proof first", "nothing shown"],
)
def test_no_other_order_lets_in(lb: Balancer, pki: Pki, tmp_path: Path, shape: Shape, known: bool) -> None:
    if known:
        seen(lb, pki.alice)
    with shaped(lb, pki, tmp_path, shape) as client:
        data, ended = client.receive_to_end()
        assert (data, ended is End.CLOSE_NOTIFY) == (b"", False)
    assert lb.records.wait(event="conn.deny")[-1].reason == "handshake_failed"


def shaped(lb: Balancer, pki: Pki, tmp_path: Path, shape: Shape) -> TlsClient:
    """A client whose last flight has been sent in these records."""
    context = client_context(pki, pki.alice)
    context.keylog_filename = str(tmp_path / "keys")
    client = TlsClient(lb.port, context)
    flight = LastFlight(client, tmp_path / "keys")
    shown, proof, end = flight.messages
    client.sock.sendall(flight.seal(*shape(shown, proof, end)))
    return client


def test_a_ca_whose_text_is_damaged_is_the_engines_to_refuse(lb: Balancer, pki: Pki) -> None:
    text = pki.ca.cert.read_bytes()
    begin, _, rest = text.partition(b"\n")
    for ca in (begin + b"\nA\n" + text.splitlines()[-1] + b"\n", begin + b"\n" + rest[1:]):
        with pytest.raises(ValueError, match="tls: "):
            listen(lb, pki, ca)


def test_a_second_ca_is_seen_whatever_dashes_it_has(lb: Balancer, pki: Pki) -> None:
    text = pki.ca.cert.read_bytes()
    with pytest.raises(ValueError, match="exactly one certificate"):
        listen(lb, pki, text + text.replace(b"-----", b"--"))


def listen(lb: Balancer, pki: Pki, ca: bytes) -> None:
    tls = lbcore.ServerTLS(cert=pki.server.cert, key=pki.server.key, client_ca=ca)
    lb.engine.listen(lb.app, "127.0.0.1:0", tls=tls, authorize=lb.policy)


def key_with_the_public_half_of(identity: Identity) -> bytes:
    """Fits the certificate as far as a client looks; what it signs, the certificate does not verify."""
    owner = load_pem_private_key(identity.key.read_bytes(), None)
    own = ec.generate_private_key(ec.SECP256R1())
    assert isinstance(owner, ec.EllipticCurvePrivateKey)
    der = own.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    mine, theirs = (
        key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) for key in (own, owner)
    )
    assert der.count(mine) == 1
    pem = base64.encodebytes(der.replace(mine, theirs)).decode()
    return f"-----BEGIN EC PRIVATE KEY-----\n{pem}-----END EC PRIVATE KEY-----\n".encode()
