"""The section `client_store`: its URL, and what its keys demand of each other."""

from __future__ import annotations

from typing import Any

import pytest

from lbctl.config import build
from lbctl.config.store_url import parse_store_url
from lbctl.errors import ConfigInvalid

URL = "https://clients.internal/v1/serials/{serial}"


def tree(**store: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
        "apps": {"web": {"listen": "127.0.0.1:1", "upstreams": [{"address": "127.0.0.2:80"}]}},
        "client_store": {"url": URL, **store},
    }


def problems(**store: Any) -> list[str]:
    with pytest.raises(ConfigInvalid) as found:
        build(tree(**store))
    return [f"{problem.path}: {problem.message}" for problem in found.value.problems]


def test_the_defaults() -> None:
    store = build(tree()).client_store
    assert store is not None
    assert (store.timeout, store.ttl, store.negative_ttl, store.on_failure) == (1.0, 60.0, 5.0, "deny")


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("clients.internal/{serial}", "expected a URL such as"),
        ("ftp://clients.internal/{serial}", "expected a URL such as"),
        ("https://clients.internal:0/{serial}", "expected a URL such as"),
        ("https://clients.internal:99999/{serial}", "expected a URL such as"),
        ("https://clients.internal/serials", "expected {serial} once"),
        ("https://clients.internal/{serial}/{serial}", "expected {serial} once"),
        ("https://{serial}.internal/x", "expected {serial} once"),
        ("https://clients.internal/{serial}/{name}", "expected {serial} once"),
        ("https://me:secret@clients.internal/{serial}", "no user or password"),
        ("https://clients.internal/{serial}#x", "is never sent"),
        ("https://clients.internal/{serial} x", "printable ASCII"),
        ("https://cl\u0131ents.internal/{serial}", "printable ASCII"),
        ("https://-x.internal/{serial}", "neither a host name nor an IP address"),
        ("http://clients.internal/{serial}", "expected https://"),
        ("http://10.0.0.1/{serial}", "expected https://"),
    ],
)
def test_a_url_that_cannot_be(url: str, problem: str) -> None:
    (found,) = problems(url=url)
    assert found.startswith("client_store.url: ")
    assert problem in found


@pytest.mark.parametrize(
    ("url", "authority", "target"),
    [
        (URL, "clients.internal", "/v1/serials/4F"),
        ("https://clients.internal:8443/?q={serial}&x=1", "clients.internal:8443", "/?q=4F&x=1"),
        ("https://[::1]:1/{serial}", "[::1]:1", "/4F"),
        ("http://127.0.0.1:80/{serial}", "127.0.0.1:80", "/4F"),
    ],
)
def test_a_url_in_its_parts(url: str, authority: str, target: str) -> None:
    parts = parse_store_url(url)
    assert (parts.authority, parts.for_serial("4F")) == (authority, target)


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ({"timeout": "1500ms"}, "client_store.timeout: 1500ms is more than half of authorize_timeout"),
        ({"cert": "x.pem"}, "client_store.cert: needs key beside it"),
        ({"key": "x.key"}, "client_store.key: needs cert beside it"),
        ({"max_stale": "1h"}, "client_store.max_stale: nothing is stale without on_failure: stale"),
        ({"max_stale": "30s", "on_failure": "stale"}, "client_store.max_stale: expected more than the ttl"),
        ({"url": "http://127.0.0.1/{serial}", "ca": "ca.pem"}, "client_store.ca: http does not use it"),
        ({"on_failure": "allow"}, "client_store.on_failure: "),
        ({"tll": "5s"}, "client_store.tll: "),
    ],
)
def test_keys_that_do_not_go_together(store: dict[str, Any], problem: str) -> None:
    (found,) = problems(**store)
    assert found.startswith(problem)
