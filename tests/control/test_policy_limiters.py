"""Limiters: one for each client, app and node, each with all limits of its class."""

from __future__ import annotations

from typing import Any

import pytest

from lbcore import RateLimitManager
from lbctl.config import build
from lbctl.policy import Key, Limiters

APP = {"listen": "127.0.0.1:0", "upstreams": [{"address": "127.0.0.1:1"}]}
WAITS = {"rate": "1/s", "mode": "delay", "max_wait": "5s"}


def limiters(node: dict[str, Any] | None = None, **app: Any) -> Limiters:
    return Limiters(
        build(
            {
                "version": 1,
                "node": node or {},
                "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
                "limits": {"one": {"concurrent": 1}, "two": {"concurrent": 2}, "waits": WAITS},
                "apps": {"web": {**APP, **app}, "other": APP},
                "clients": {"alice": {"serials": [1], "apps": ["web"]}},
            }
        )
    )


def open_all(*managers: RateLimitManager | None) -> list[bool]:
    return [bool(manager.connection_opened()) for manager in managers if manager is not None]


def test_an_app_and_the_node_hold_all_clients_together() -> None:
    found = limiters({"limits": "two"}, app_limits="one")
    web, other = found.application("web"), found.application("other")
    assert web is not None
    assert other is not None
    assert (web.scope, other.scope) == ("application", "global")
    assert open_all(web, other) == [True, True]
    refused = web.connection_opened()
    assert (refused.scope, refused.limit) == ("application", "concurrent")
    refused = other.connection_opened()
    assert (refused.scope, refused.limit) == ("global", "concurrent"), "one from each app is two"


def test_the_nodes_limits_are_one_object_for_all_apps() -> None:
    found = limiters({"limits": "two"})
    assert found.application("web") is found.application("other")
    assert found.application("web") is not None


def test_without_such_limits_there_is_nothing() -> None:
    found = limiters()
    assert found.application("web") is None
    assert found.client("alice", "web", None) is None
    assert found.source_class("web", None) is None
    assert found.all() == {}


def test_a_client_is_limited_in_its_own_scope() -> None:
    manager = limiters().client("alice", "web", "one")
    assert manager is not None
    assert (manager.name, manager.scope) == ("alice/web", "client")
    assert open_all(manager, manager) == [True, False]


@pytest.mark.parametrize("where", ["app", "node"])
def test_where_connections_wait_together_each_client_has_a_limiter(where: str) -> None:
    found = limiters(app_limits="waits") if where == "app" else limiters({"limits": "waits"})
    alice, bob = found.client("alice", "web", None), found.client("bob", "web", None)
    assert alice is not None
    assert bob is not None
    assert alice is not bob
    assert found.client("alice", "web", None) is alice
    assert all(open_all(*[alice] * 100)), "it limits nothing"
    assert found.source_class("web", None) is not None
    assert (found.client("alice", "other", None) is None) == (where == "app")


def test_a_class_is_taken_over_whole() -> None:
    config = build(
        {
            "version": 1,
            "limits": {
                "all": {
                    "rate": "5/s",
                    "burst": 7,
                    "window": "20/10s",
                    "concurrent": 9,
                    "replace_oldest": True,
                    "bandwidth_in": "1kB/s",
                    "bandwidth_out": "2kB/s",
                    "max_lifetime": "1h",
                    "mode": "delay",
                    "max_wait": "3s",
                }
            },
            "apps": {"raw": {**APP, "plaintext": True, "limits": "all"}},
        }
    )
    found = Limiters(config).source_class("raw", "all")
    assert found is not None
    assert (found.rate, found.burst, found.window, found.max_open) == (5.0, 7, (20, 10.0), 9)
    assert (found.bandwidth_in, found.bandwidth_out, found.max_lifetime) == (1e3, 2e3, 3600.0)
    assert (found.on_exceed, found.max_wait, found.replace_oldest) == ("delay", 3.0, True)


def test_whoever_asked_is_told_of_every_limiter_before_it_counts() -> None:
    told: list[tuple[Key, int]] = []
    config = build(
        {
            "version": 1,
            "node": {"limits": "one"},
            "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
            "limits": {"one": {"concurrent": 1}},
            "apps": {"web": {**APP, "app_limits": "one"}},
        }
    )
    found = Limiters(config, lambda key, manager: told.append((key, manager.admitted)))
    for _ in range(2):
        open_all(found.client("alice", "web", "one"))
    assert told == [(Key(), 0), (Key("web"), 0), (Key("web", "alice"), 0)]
    assert list(found.all()) == [key for key, _ in told]
