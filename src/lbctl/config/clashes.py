"""Values that may appear once only: listen addresses, upstreams of one app, serials; and circles."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from lbctl.config.faults import Fault, Path, dotted
from lbctl.config.references import section
from lbctl.config.upstream_rules import PLACES
from lbctl.config.values import UNIX, parse_serial, shorten, split_address

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def faults(tree: dict[str, Any]) -> Iterator[Fault]:
    """Every value that clashes with an earlier one."""
    yield from _listeners(tree)
    for name, app in section(tree, "apps").items():
        yield from _upstreams(name, section({"": app}, "").get("upstreams"))
        yield from _circles(name, section({"": app}, ""))
    yield from _serials(tree)


def _listeners(tree: dict[str, Any]) -> Iterator[Fault]:
    by_port: dict[int, list[tuple[Address, str]]] = {}
    for name, app in section(tree, "apps").items():
        address = _address(section({"": app}, "").get("listen"))
        if address is None or address[1] == 0:
            continue
        host, port = address
        taken = by_port.setdefault(port, [])
        for other, other_name in taken:
            if _overlap(host, other):
                yield Fault(
                    ("apps", name, "listen"),
                    f"the same address as app '{shorten(str(other_name))}'",
                    also=("apps", other_name, "listen"),
                )
                break
        taken.append((host, name))


def _overlap(one: Address, other: Address) -> bool:
    """Whether two sockets on these addresses and one port would want the same packets.

    `[::]` listens on both families, so it overlaps everything.
    """
    one, other = _plain_v4(one), _plain_v4(other)
    if one == other or any(a.version == 6 and a.is_unspecified for a in (one, other)):
        return True
    return one.version == other.version and (one.is_unspecified or other.is_unspecified)


def _plain_v4(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped if mapped is not None else address


def _upstreams(app: str, upstreams: Any) -> Iterator[Fault]:
    seen: dict[Any, int] = {}
    for index, upstream in enumerate(upstreams if isinstance(upstreams, list | tuple) else ()):
        for key in PLACES:
            place = _place(key, section({"": upstream}, ""))
            if place is None:
                continue
            first = seen.setdefault((key, place), index)
            if first != index:
                path: Path = ("apps", app, "upstreams", index, key)
                also: Path = ("apps", app, "upstreams", first, key)
                yield Fault(path, f"the same upstream as {dotted(also[:-1])}", also=also)


def _place(key: str, upstream: dict[str, Any]) -> object:
    """What tells this upstream from others; None when it has no such key, or nothing that can be compared."""
    value = upstream.get(key)
    if not isinstance(value, str):
        return None
    if key == "address":
        return value if value.startswith(UNIX) else _address(value)
    return (value.lower().removesuffix("."), str(upstream.get("port")))


def _circles(name: str, app: dict[str, Any]) -> Iterator[Fault]:
    """An app that forwards to itself would forward for ever."""
    listen = app.get("listen")
    upstreams = app.get("upstreams")
    for index, upstream in enumerate(upstreams if isinstance(upstreams, list | tuple) else ()):
        if is_own(listen, section({"": upstream}, "").get("address")):
            path: Path = ("apps", name, "upstreams", index, "address")
            yield Fault(path, "this app's own listen address", also=("apps", name, "listen"))


def is_own(listen: object, address: object) -> bool:
    """Whether an upstream at that address would be the listener itself."""
    own, target = _address(listen), _address(address)
    return own is not None and target is not None and own[1] == target[1] and _reaches(target[0], own[0])


def _reaches(target: Address, listener: Address) -> bool:
    """Whether connecting to `target` surely ends at a socket on this host that listens on `listener`."""
    target, listener = _plain_v4(target), _plain_v4(listener)
    if listener.is_unspecified:  # other hosts have that port too
        return (target.is_loopback or target.is_unspecified) and (
            target.version == listener.version or listener.version == 6
        )
    return target == listener


def _serials(tree: dict[str, Any]) -> Iterator[Fault]:
    seen: dict[int, Path] = {}
    for name, client in section(tree, "clients").items():
        serials = section({"": client}, "").get("serials")
        for index, value in enumerate(serials if isinstance(serials, list | tuple) else ()):
            path: Path = ("clients", name, "serials", index)
            serial = _serial(value)
            if serial is None:
                continue
            first = seen.setdefault(serial, path)
            if first != path:
                yield Fault(path, f"the same serial as {dotted(first)}", also=first)


def _serial(value: object) -> int | None:
    if isinstance(value, int):
        return value
    try:
        return parse_serial(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _address(value: object) -> tuple[Address, int] | None:
    try:
        return split_address(value) if isinstance(value, str) else None
    except ValueError:
        return None
