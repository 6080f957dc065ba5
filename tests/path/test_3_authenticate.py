"""Stage 3, authenticate: which certificates prove who somebody is.

A certificate without extended key usage restricts its purpose to nothing and passes: its serial decides.
One that names its purposes must name clientAuth.
"""

from __future__ import annotations

import datetime as dt

import pytest
from kit.balancer import TLS_ENGINE, Balancer
from kit.clients import TlsClient, client_context, connect, outcome, s_client
from kit.fixtures import MakeBalancer, Options
from kit.pki import CLIENT, DAY, SERVER, Identity, Pki
from kit.servers import require_server
from kit.sockets import End
from kit.upstreams import Upstream

import lbcore

NEVER_REFUSED_CLEANLY = (End.RESET, End.ALERT)


def refused(lb: Balancer, identity: Identity | None, *, weak: bool = False) -> lbcore.Record:
    """The record of a client that must see an error, never a clean end."""
    end = outcome(lb.port, client_context(lb.pki, identity, weak=weak))
    assert end in NEVER_REFUSED_CLEANLY
    record: lbcore.Record = lb.record(event="conn.deny")
    return record


def check_nothing_happened(lb: Balancer, upstream: Upstream) -> None:
    """No dial, no question, no client."""
    assert upstream.accepted == 0
    assert lb.policy.asked == []
    assert lb.engine.stats()["applications"]["web"]["forwarded"] == 0


def test_no_certificate(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    record = refused(lb, None)
    assert (record.reason, record.stage) == ("no_certificate", "authenticate")
    assert (record.serial, record.client, record.certificate) == (None, None, None)
    check_nothing_happened(lb, upstream)


@pytest.mark.parametrize("name", ["alice", "test-ca"], ids=["named like a client", "named like the CA"])
def test_self_signed(balance: MakeBalancer, upstream: Upstream, pki: Pki, name: str) -> None:
    lb = balance(upstream)
    record = refused(lb, pki.self_signed(name, pki.alice.serial))
    assert (record.reason, record.stage) == ("unknown_ca", "authenticate")
    check_nothing_happened(lb, upstream)


def test_rogue_ca_of_the_same_name(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """The names match, the signature does not."""
    lb = balance(upstream)
    rogue = pki.rogue.issue("alice", serial=pki.alice.serial)
    record = refused(lb, rogue)
    assert record.reason == "unknown_ca"
    assert record.client is None
    assert record.serial == pki.alice.serial
    assert record.certificate == rogue.der
    assert record.claimed
    check_nothing_happened(lb, upstream)


def test_a_leaf_of_a_sub_ca_with_a_known_serial(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """A serial is unique below one issuer only: a CA below ours could mint alice's."""
    lb = balance(upstream)
    record = refused(lb, pki.sub_ca.issue("mallory", serial=pki.alice.serial))
    assert record.reason == "wrong_issuer"
    assert record.client is None
    check_nothing_happened(lb, upstream)


def test_a_leaf_of_a_sub_ca_without_the_chain(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    identity = pki.sub_ca.issue("mallory-alone")
    leaf_only = identity.cert.read_text().partition("-----END CERTIFICATE-----")
    identity.cert.write_text(leaf_only[0] + leaf_only[1] + "\n")
    assert refused(lb, identity).reason == "unknown_ca"
    check_nothing_happened(lb, upstream)


def test_an_honest_leaf_with_the_root_in_its_chain(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """Many clients send the root too."""
    lb = balance(upstream)
    identity = pki.client()
    identity.cert.write_bytes(identity.cert.read_bytes() + pki.ca.cert.read_bytes())
    lb.policy.allow(identity, "web")
    with connect(pki, lb.port, identity) as client:
        client.echo(b"let in")


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("expired", {"starts": -30 * DAY, "ends": -DAY}, "expired"),
        ("just-expired", {"ends": -dt.timedelta(seconds=2)}, "expired"),
        ("not-yet-valid", {"starts": DAY, "ends": 2 * DAY}, "not_yet_valid"),
        ("server-only", {"usages": SERVER}, "wrong_purpose"),
    ],
)
def test_unfit_certificates(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, name: str, options: Options, reason: str
) -> None:
    lb = balance(upstream)
    record = refused(lb, pki.ca.issue(name, **options))
    assert record.reason == reason
    assert record.event == "conn.deny"
    assert record.stage == "authenticate"
    check_nothing_happened(lb, upstream)


def test_client_and_server_purpose_together_pass(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    identity = pki.ca.issue("both", usages=SERVER + CLIENT)
    lb.policy.allow(identity, "web")
    with connect(pki, lb.port, identity) as client:
        client.echo(b"x")


def test_a_weak_rsa_key(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    assert refused(lb, pki.rsa_client(1024), weak=True).reason == "weak_key"
    check_nothing_happened(lb, upstream)


def test_an_rsa_key_of_2048_bits(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    identity = pki.rsa_client(2048)
    lb.policy.allow(identity, "web")
    with connect(pki, lb.port, identity) as client:
        client.echo(b"x")


def test_a_key_for_rsa_pss_only(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """RFC 4055, id-RSASSA-PSS, which signs with rsa_pss_pss_sha256."""
    openssl = require_server("openssl")
    lb = balance(upstream)
    identity = pki.openssl_client("pss", None, openssl, ("rsa-pss", "-pkeyopt", "rsa_keygen_bits:2048"))
    lb.policy.allow(identity, "web")
    with connect(pki, lb.port, identity) as client:
        client.echo(b"x")


def test_ed25519_depends_on_the_engine(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """s2n takes no Ed25519 client; the reason is the one for a certificate it cannot use."""
    lb = balance(upstream)
    identity = pki.ed25519_client()
    if TLS_ENGINE == "openssl":
        lb.policy.allow(identity, "web")
        with connect(pki, lb.port, identity) as client:
            client.echo(b"x")
        return
    assert refused(lb, identity).reason == "no_certificate"
    check_nothing_happened(lb, upstream)


@pytest.mark.parametrize(
    "serial",
    [1, 0x7F, 0x80, 0xFF, 0x100, 2**63, 2**64, 2**159 - 1, (1 << 158) + 5],
    ids=hex,
)
def test_serials_are_positive_integers(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, serial: int
) -> None:
    """DER pads 0x80 with a zero; 20 octets are the most RFC 5280 allows."""
    identity = pki.client(serial=serial)
    lb = balance(upstream, policy=[lbcore.PolicyClient(identity.name, [serial], ["web"])])
    lb.policy.allow(identity, "web")
    with connect(pki, lb.port, identity) as client:
        client.echo(b"x")
    record = lb.record(event="conn.close")
    assert (record.serial, record.client) == (serial, identity.name)


def test_openssl_x509_req_with_an_extension_file(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    openssl = require_server("openssl")
    lb = balance(upstream)
    identity = pki.openssl_client("by-openssl", "extendedKeyUsage=clientAuth\n", openssl)
    assert identity.serial.bit_length() > 64
    lb.policy.allow(identity, "web")
    with connect(pki, lb.port, identity) as client:
        client.echo(b"x")
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-cert", str(identity.cert), "-key", str(identity.key),
        send=b"hello there\n",
    )  # fmt: skip
    assert "hello there" in seen


def test_openssl_x509_req_without_any_extension(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """It makes a version 1 certificate, which restricts its purpose to nothing (RFC 5280, 4.2.1.12)."""
    openssl = require_server("openssl")
    lb = balance(upstream)
    identity = pki.openssl_client("by-openssl-plain", None, openssl)
    lb.policy.allow(identity, "web")
    with connect(pki, lb.port, identity) as client:
        client.echo(b"x")
    assert lb.record(event="conn.close").serial == identity.serial


def test_no_purpose_is_any_purpose_but_still_nobody_we_know(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """Who may come in is decided by the serials on the list, with or without an extended key usage."""
    lb = balance(upstream)
    identity = pki.ca.issue("no-eku", usages=())
    assert refused(lb, identity).reason == "unknown_serial"
    assert upstream.accepted == 0


def test_names_never_decide(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """Whoever calls himself alice is still somebody else."""
    lb = balance(upstream)
    mallory = pki.ca.issue("mallory", serial=0x6666)
    evil = pki.ca.issue("alice", serial=0x6667)
    for identity in (mallory, evil):
        assert outcome(lb.port, client_context(pki, identity)) is End.RESET
    assert {record.serial for record in lb.records.wait(2, reason="unknown_serial")} == {0x6666, 0x6667}
    assert upstream.accepted == 0


def test_a_permanent_refusal_is_a_reset_even_when_the_client_has_spoken(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """A bare FIN looks like a clean end to most clients."""
    lb = balance(upstream)
    mallory = client_context(pki, pki.ca.issue("mallory"))
    for size in (0, 1024, 16384, 65536):
        with TlsClient(lb.port, mallory) as client:
            try:
                client.handshake()
                client.send(b"x" * size)
                end = client.receive_to_end()[1]
            except (ConnectionResetError, BrokenPipeError):
                end = End.RESET
            assert end is End.RESET
    assert len(lb.records.wait(4, reason="unknown_serial")) == 4
    assert upstream.accepted == 0
