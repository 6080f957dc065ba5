"""What certificates claim of their clients: the URIs, and who is believed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.pki import Pki

from lbcore import PeerCertificate
from lbctl.certificates.claims import Claims, app_claim, client_claim, read_claims
from lbctl.config import build
from lbctl.policy import Authorizer, CertificateClaims, Chain, ConfigStore, Limiters, Rules
from lbctl.policy.store import Answer, ClientRecord

NAMES = st.text(
    st.characters(exclude_categories=["C", "Z"], exclude_characters="/"), min_size=1, max_size=20
).filter(str.isprintable)


@given(NAMES, st.dictionaries(NAMES, st.none() | NAMES, max_size=4))
def test_what_is_written_is_read(client: str, apps: dict[str, str | None]) -> None:
    uris = [client_claim(client), *(app_claim(*one) for one in apps.items())]
    assert all(uri.isascii() for uri in uris)
    assert read_claims([*uris, *uris, "https://example.org/"]) == Claims(client, apps)


def test_a_certificate_without_claims() -> None:
    assert read_claims([]) is None
    assert read_claims(["https://example.org/", "urn:other:client:x", "urn:lbctlx:client:x"]) is None


@pytest.mark.parametrize(
    ("uris", "problem"),
    [
        (["urn:lbctl:app:web"], "apps, but no client"),
        (["urn:lbctl:client:a", "urn:lbctl:client:b"], "two different clients"),
        (["urn:lbctl:client:a", "urn:lbctl:app:web", "urn:lbctl:app:web:batch"], "two different claims"),
        (["urn:lbctl:client:a", "urn:lbctl:role:admin"], "is no claim"),
        (["urn:lbctl:client:a:b"], "is no claim"),
        (["urn:lbctl:client:"], "an empty name"),
        (["urn:lbctl:"], "is no claim"),
        (["urn:lbctl:client:a%2"], "not allowed there"),
        (["urn:lbctl:client:a b"], "not allowed there"),
        (["urn:lbctl:client:a\x00"], "not allowed there"),
        (["urn:lbctl:client:%ff"], "is not UTF-8"),
        (["urn:lbctl:client:a%2Fb"], "no '/'"),
        (["urn:lbctl:client:a%00"], "printable"),
        (["URN:LBCTL:role:admin"], "is no claim"),
        (["urn:lbctl:CLIENT:a"], "is no claim"),
    ],
)
def test_wrong_claims_count_for_nothing(uris: list[str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_claims(uris)


# ---- believing them ------------------------------------------------------------------------------

TREE: dict[str, Any] = {
    "version": 1,
    "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
    "limits": {"batch": {"concurrent": 1}},
    "certificate_claims": True,
    "apps": {
        name: {"listen": f"127.0.0.1:{port}", "upstreams": [{"address": "127.0.0.2:80"}]}
        for name, port in (("web", 1), ("db", 2))
    },
}


def peer(pki: Pki, *uris: str) -> PeerCertificate:
    issued = pki.ca.issue("x", addresses=uris)
    return PeerCertificate(issued.der, issued.serial)


def test_a_claimed_app_is_open_and_others_are_not(pki: Pki) -> None:
    rules = Rules(build(TREE))
    alice = peer(pki, client_claim("alice"), app_claim("web", "batch"), app_claim("of-another-balancer"))
    assert rules.claims is not None
    assert rules.claims.find(alice) == Answer(
        ClientRecord("alice", frozenset({"web"}), {"web": "batch"}, source="certificate")
    )
    authorize = Authorizer(rules, Limiters(build(TREE)), Chain([ConfigStore(rules), rules.claims]))
    admitted = authorize(alice, "web")
    assert (admitted.allow, admitted.client) == (True, "alice")
    assert admitted.limits is not None
    refused = authorize(alice, "db")
    assert (refused.allow, refused.client, refused.reason) == (False, "alice", "app_not_allowed")
    assert authorize(peer(pki), "web").reason == "unknown_serial"


def test_a_claim_to_a_class_that_does_not_exist_is_no_way_around_limits(pki: Pki) -> None:
    claims = CertificateClaims(build(TREE))
    alice = peer(pki, client_claim("alice"), app_claim("web", "unlimited"))
    assert claims.find(alice) == Answer(None)
    with pytest.raises(ValueError, match="unknown class of limits 'unlimited'"):
        claims.read(alice)


def test_the_configuration_and_the_store_come_before_the_certificate(pki: Pki) -> None:
    alice = peer(pki, client_claim("alice"), app_claim("web"))
    listed = build(TREE | {"clients": {"a": {"serials": [f"{alice.serial:X}"], "apps": ["db"]}}})
    rules = Rules(listed)
    assert rules.claims is not None

    class Store:
        def find(self, peer: PeerCertificate) -> Answer:
            return Answer(ClientRecord("of-the-store", frozenset(), disabled=True, source="store"), 5.0)

    chain = Chain([ConfigStore(rules), Store(), rules.claims])
    assert Authorizer(rules, Limiters(listed), chain)(alice, "web").reason == "app_not_allowed"
    rules = Rules(build(TREE))
    assert rules.claims is not None
    chain = Chain([ConfigStore(rules), Store(), rules.claims])
    verdict = Authorizer(rules, Limiters(build(TREE)), chain)(alice, "web")
    assert (verdict.client, verdict.reason, verdict.ttl) == ("of-the-store", "client_disabled", 5.0)


def test_a_client_disabled_in_the_configuration_stays_out_under_its_name(pki: Pki) -> None:
    config = build(TREE | {"clients": {"alice": {"serials": ["1"], "apps": ["web"], "disabled": True}}})
    rules = Rules(config)
    assert rules.claims is not None
    other = peer(pki, client_claim("alice"), app_claim("web"))
    authorize = Authorizer(rules, Limiters(config), Chain([ConfigStore(rules), rules.claims]))
    assert authorize(other, "web").reason == "client_disabled"


def test_a_certificate_that_cannot_be_read_claims_nothing() -> None:
    claims = CertificateClaims(build(TREE))
    assert claims.find(PeerCertificate(b"\x30\x00", 1)) == Answer(None)


def test_they_count_only_where_they_are_switched_on() -> None:
    tree = {key: value for key, value in TREE.items() if key != "certificate_claims"}
    assert Rules(build(tree)).claims is None
    assert Rules(build(tree)).elsewhere is False
