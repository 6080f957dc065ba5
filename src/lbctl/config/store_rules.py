"""What the keys of `client_store` demand of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbctl.config.faults import Fault, Path
from lbctl.config.references import seconds, section
from lbctl.config.values import format_duration
from lbctl.config.web_url import is_http, unused_by_http

AT: Path = ("client_store",)
AUTHORIZE_TIMEOUT, TIMEOUT, TTL = 2.0, 1.0, 60.0  # seconds, by default; the model has the same


def faults(tree: dict[str, Any]) -> Iterator[Fault]:
    """Everything that does not go together."""
    store = section(tree, "client_store")
    if not store:
        return
    yield from _files(store)
    yield from _patience(store, tree)
    yield from _staleness(store)


def _files(store: dict[str, Any]) -> Iterator[Fault]:
    if is_http(store.get("url")):
        yield from unused_by_http(AT, store, "url", ("ca", "cert", "key"))
        return
    for key, other in (("cert", "key"), ("key", "cert")):
        if store.get(key) is not None and store.get(other) is None:
            yield Fault((*AT, key), f"needs {other} beside it", at="key")


def _patience(store: dict[str, Any], tree: dict[str, Any]) -> Iterator[Fault]:
    """The store's answer must come in time to be passed on."""
    timeout = seconds(store.get("timeout"), TIMEOUT)
    whole = seconds(tree.get("authorize_timeout"), AUTHORIZE_TIMEOUT)
    if timeout is not None and whole is not None and timeout > whole / 2:
        yield Fault(
            (*AT, "timeout"),
            f"{format_duration(timeout)} is more than half of authorize_timeout "
            f"({format_duration(whole)}); the answer would come too late",
        )


def _staleness(store: dict[str, Any]) -> Iterator[Fault]:
    if store.get("max_stale") is None:
        return
    at = (*AT, "max_stale")
    if store.get("on_failure") in (None, "deny"):
        yield Fault(at, "nothing is stale without on_failure: stale; write that, or remove this", at="key")
        return
    longest, ttl = seconds(store["max_stale"], 0.0), seconds(store.get("ttl"), TTL)
    if longest is not None and ttl is not None and longest <= ttl:
        yield Fault(at, f"expected more than the ttl ({format_duration(ttl)}): until then nothing is stale")
