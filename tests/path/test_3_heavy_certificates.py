"""Stage 3, authenticate: certificates as large as they may be, or larger, cost nobody else anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from kit.balancer import TLS_ENGINE, Balancer
from kit.clients import TlsClient, client_context
from kit.fixtures import MakeBalancer
from kit.memory import anonymous_bytes
from kit.pki import Authority, Identity, Pki
from kit.transfers import transfers
from kit.upstreams import Upstream

ROUNDS = 8
MEMORY_MAX = 4 * 1024 * 1024  # bytes that all rounds together may leave behind


def thousands_of_names(pki: Pki) -> Identity:
    return pki.ca.issue("many-names", addresses=[f"host-{number}.example" for number in range(5000)])


def a_long_subject(pki: Pki) -> Identity:
    return pki.ca.issue("long-subject", organizations=["x" * 1000] * 16)


def a_subject_too_long(pki: Pki) -> Identity:
    return pki.ca.issue("too-long-a-subject", organizations=["x" * 1000] * 36)


def a_huge_key(pki: Pki) -> Identity:
    """RSA of 15 636 bits, at once: from two primes of Mersenne's, instead of minutes of search."""
    e, p, q = 65537, 2**11213 - 1, 2**4423 - 1
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), rsa.RSAPublicNumbers(e, p * q)
    )
    return pki.ca.issue("huge-key", key=numbers.private_key(unsafe_skip_rsa_key_validation=True))


def a_long_chain(pki: Pki) -> Identity:
    authority = pki.ca
    for depth in range(12):
        authority = Authority(pki.folder, f"depth-{depth}", authority)
    return authority.issue("deep")


def answer(lb: Balancer, identity: Identity) -> str:
    """``served``, or the reason in the record."""
    with TlsClient(lb.port, client_context(lb.pki, identity)) as client:
        source = client.source
        try:
            client.handshake()
            client.echo(b"x")
            return "served"
        except (OSError, AssertionError):  # ssl.SSLError is an OSError
            return lb.record(event="conn.deny", source=source).reason


@pytest.mark.parametrize(
    ("make", "s2n", "openssl"),
    [
        (thousands_of_names, "handshake_failed", "handshake_too_big"),
        (a_long_subject, "served", "served"),
        (a_subject_too_long, "handshake_too_big", "handshake_too_big"),
        (a_huge_key, "served", "served"),
        (a_long_chain, "wrong_issuer", "wrong_issuer"),
    ],
)
def test_it_is_served_or_refused_and_nobody_else_notices(
    balance: MakeBalancer,
    upstream: Upstream,
    pki: Pki,
    make: Callable[[Pki], Identity],
    s2n: str,
    openssl: str,
) -> None:
    lb = balance(upstream, engine={"workers": 1, "handshake_timeout": 20})  # signing with a huge key is slow
    identity = make(pki)
    lb.policy.allow(identity, "web")
    expected = openssl if TLS_ENGINE == "openssl" else s2n
    with transfers(pki, lb.port, 2):
        for _ in range(ROUNDS):
            assert answer(lb, identity) == expected


@pytest.mark.memory
@pytest.mark.parametrize("make", [thousands_of_names, a_long_subject, a_huge_key, a_long_chain])
def test_it_leaves_no_memory_behind(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, make: Callable[[Pki], Identity]
) -> None:
    lb = balance(upstream, engine={"workers": 1})
    identity = make(pki)
    lb.policy.allow(identity, "web")
    answer(lb, identity)  # the first may fill caches
    before = anonymous_bytes()
    for _ in range(ROUNDS):
        answer(lb, identity)
    assert anonymous_bytes() - before < MEMORY_MAX
