"""What the keys of an app's upstreams demand of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbctl.config.faults import Fault, Path
from lbctl.config.references import seconds, section
from lbctl.config.values import UNIX, format_duration

PLACES = ("address", "dns", "srv")
INTERVAL, TIMEOUT = 2.0, 1.0  # seconds, by default; the model has the same


def faults(tree: dict[str, Any]) -> Iterator[Fault]:
    """Everything that does not go together."""
    for name, app in section(tree, "apps").items():
        if isinstance(app, dict):
            at: Path = ("apps", name)
            for path, upstream in upstreams(app, at):
                yield from _place(upstream, path)
            yield from _upstream_tls(app, at)
            yield from _proxy_protocol(app, at)
            yield from _active(app, (*at, "health", "active"))


def upstreams(app: dict[str, Any], at: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Those that are mappings, with their paths."""
    listed = app.get("upstreams")
    for index, upstream in enumerate(listed if isinstance(listed, list | tuple) else ()):
        if isinstance(upstream, dict):
            yield (*at, "upstreams", index), upstream


def _place(upstream: dict[str, Any], at: Path) -> Iterator[Fault]:
    """Exactly one place, and the port with the name that needs it."""
    given = [key for key in PLACES if upstream.get(key) is not None]
    if not given:
        yield Fault(at, "needs one of address: HOST:PORT, dns: NAME with port: N, or srv: NAME")
    for key in given[1:]:
        yield Fault((*at, key), f"'{given[0]}' says where it is already; remove one of them", at="key")
    if upstream.get("dns") is not None and upstream.get("port") is None:
        yield Fault((*at, "dns"), "needs port beside it, such as port: 5432", at="key")
    if upstream.get("port") is not None and upstream.get("dns") is None:
        yield Fault((*at, "port"), "belongs to dns; addresses and SRV records have their own", at="key")


def _upstream_tls(app: dict[str, Any], at: Path) -> Iterator[Fault]:
    tls = app.get("upstream_tls")
    if not isinstance(tls, dict):
        return
    for key, other in (("cert", "key"), ("key", "cert")):
        if tls.get(key) is not None and tls.get(other) is None:
            yield Fault((*at, "upstream_tls", key), f"needs {other} beside it", at="key")
    if tls.get("verify_name") is not None:
        return
    for path, upstream in upstreams(app, at):
        address = upstream.get("address")
        if upstream.get("srv") is not None or (isinstance(address, str) and address.startswith(UNIX)):
            message = f"needs verify_name: what the certificate of {'.'.join(map(str, path[2:]))} must say"
            yield Fault((*at, "upstream_tls"), message, at="key")
            return


def _proxy_protocol(app: dict[str, Any], at: Path) -> Iterator[Fault]:
    if app.get("proxy_protocol") == "v2+tls" and app.get("plaintext") in (True, "true"):
        yield Fault((*at, "proxy_protocol"), "a plaintext app has no TLS to tell of; write v2")


def _active(app: dict[str, Any], at: Path) -> Iterator[Fault]:
    active = section(section({"": app}, "").get("health"), "active")
    if active.get("type") == "tls" and app.get("upstream_tls") is None:
        yield Fault((*at, "type"), "needs upstream_tls beside health, which says whom to trust; or write tcp")
    timeout, interval = seconds(active.get("timeout"), TIMEOUT), seconds(active.get("interval"), INTERVAL)
    if timeout is not None and interval is not None and timeout > interval:
        key = "timeout" if active.get("timeout") is not None else "interval"
        took, next_one = format_duration(timeout), format_duration(interval)
        message = f"a check ({took}) must be over before the next one begins ({next_one})"
        yield Fault((*at, key), message)
