"""Authorizer: verdicts, and one limiter for each client and app."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from lbcore import PeerCertificate
from lbctl.config import build
from lbctl.policy import Authorizer, Limiters, Rules

APP = {"listen": "127.0.0.1:0", "upstreams": [{"address": "127.0.0.1:1"}]}


def authorizer() -> Authorizer:
    config = build(
        {
            "version": 1,
            "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
            "limits": {"two": {"concurrent": 2}},
            "apps": {"web": {**APP, "limits": "two"}, "free": APP},
            "clients": {
                "alice": {"serials": [1, 2], "apps": ["web", "free"]},
                "bob": {"serials": [3], "apps": ["web"]},
                "gone": {"serials": [4], "apps": ["web"], "disabled": True},
            },
        }
    )
    return Authorizer(Rules(config), Limiters(config))


def peer(serial: int) -> PeerCertificate:
    return PeerCertificate(b"", serial)


def test_verdicts_follow_the_rules() -> None:
    decide = authorizer()
    assert decide(peer(1), "web").allow
    assert decide(peer(1), "web").client == "alice"
    assert decide(peer(3), "free").reason == "app_not_allowed"
    assert decide(peer(3), "free").client == "bob"
    assert decide(peer(4), "web").reason == "client_disabled"
    assert decide(peer(5), "web").reason == "unknown_serial"
    assert decide(peer(5), "web").client is None


def test_all_certificates_of_a_client_share_its_limiter() -> None:
    decide = authorizer()
    limiter = decide(peer(1), "web").limits
    assert limiter is not None
    assert decide(peer(2), "web").limits is limiter
    assert limiter.connection_opened()
    assert limiter.connection_opened()
    assert not limiter.connection_opened(), "the class allows two"


def test_clients_and_apps_do_not_share() -> None:
    decide = authorizer()
    assert decide(peer(3), "web").limits is not decide(peer(1), "web").limits
    assert decide(peer(1), "free").limits is None, "the app has no class"


def test_a_refusal_carries_no_limiter() -> None:
    assert authorizer()(peer(3), "free").limits is None


def test_many_threads_get_the_same_limiter() -> None:
    decide = authorizer()
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: id(decide(peer(1), "web").limits), range(200)))
    assert len(found) == 1
