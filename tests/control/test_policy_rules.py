"""Rules: what a configuration says about one certificate and one app."""

from __future__ import annotations

from typing import Any

import pytest

from lbctl.config import Config, build
from lbctl.policy import Rules, policy_clients

ALICE, ALICE_NEXT, MALLORY, OLD = 0x4F3A910C7712A05E, 0x512208DE9B443107, 0x2B9011AC056EF813, 0x19


def config(**changes: Any) -> Config:
    app = {"listen": "127.0.0.1:0", "upstreams": [{"address": "127.0.0.1:1"}]}
    return build(
        {
            "version": 1,
            "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
            "apps": {"hello": app, "batch": {**app, "limits": "slow"}},
            "limits": {"slow": {"rate": 1}, "own": {"concurrent": 3}},
            "clients": {
                "alice": {
                    "serials": [ALICE, ALICE_NEXT],
                    "apps": ["hello", "batch"],
                    "limits": {"hello": "own"},
                },
                "mallory": {"serials": [MALLORY]},
                "old": {"serials": [OLD], "apps": ["hello"], "disabled": True},
            },
            **changes,
        }
    )


@pytest.mark.parametrize("serial", [ALICE, ALICE_NEXT])
def test_each_serial_of_a_client_is_let_in(serial: int) -> None:
    decision = Rules(config()).judge(serial, "hello")
    assert decision.allow
    assert decision.client == "alice"


@pytest.mark.parametrize(
    ("serial", "app", "client", "reason"),
    [
        (1, "hello", None, "unknown_serial"),
        (MALLORY, "hello", "mallory", "app_not_allowed"),
        (ALICE, "nowhere", "alice", "app_not_allowed"),
        (OLD, "hello", "old", "client_disabled"),
        (OLD, "batch", "old", "client_disabled"),
    ],
)
def test_everybody_else_is_refused_with_a_reason(
    serial: int, app: str, client: str | None, reason: str
) -> None:
    decision = Rules(config()).judge(serial, app)
    assert not decision.allow
    assert (decision.client, decision.reason) == (client, reason)


def test_nobody_is_let_in_without_clients() -> None:
    assert Rules(config(clients={})).judge(ALICE, "hello").reason == "unknown_serial"


def test_the_clients_own_class_comes_before_the_apps() -> None:
    rules = Rules(config())
    assert rules.class_name("alice", "hello") == "own"
    assert rules.class_name("alice", "batch") == "slow"
    assert rules.class_name("mallory", "hello") is None
    assert rules.limits("mallory", "hello") is None


def test_the_class_default_holds_where_none_is_named() -> None:
    rules = Rules(config(limits={"slow": {"rate": 1}, "own": {"concurrent": 3}, "default": {"rate": 9}}))
    assert rules.class_name("mallory", "hello") == "default"
    assert rules.class_name("mallory", "batch") == "slow"
    assert rules.class_name("alice", "hello") == "own"
    limits = rules.limits(None, "hello")
    assert limits is not None
    assert limits.rate == 9


def test_the_native_table_says_the_same() -> None:
    table = {client.name: client for client in policy_clients(config())}
    assert list(table["alice"].serials) == [ALICE, ALICE_NEXT]
    assert set(table["alice"].apps) == {"hello", "batch"}
    assert table["mallory"].apps == ()
    assert table["old"].disabled
    assert not table["alice"].disabled
