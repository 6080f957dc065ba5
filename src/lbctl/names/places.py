"""What is kept of an answer: addresses that can be connected to, in one order, and not too many. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from lbctl.names.values import Found, IPAddress

FOUND_MAX = 256  # addresses of one name; as many as have sense as upstreams of one app
_NAMED_MAX = 3  # that are named in a message
_THIS_NETWORK = ipaddress.IPv4Network("0.0.0.0/8")  # RFC 1122, 3.2.1.3
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")

#: Address and port, with the weight.
Weighted = Mapping[tuple[IPAddress, int], int | None]


def place(ip: IPAddress) -> IPAddress | None:
    """The address when something can listen there; an IPv4 address mapped into IPv6 is that IPv4 address.

    Link-local addresses are no place either: without a zone nobody knows on which link.
    """
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return place(ip.ipv4_mapped)
        nowhere = ip.is_multicast or ip.is_unspecified or ip.is_link_local or ip.scope_id is not None
    else:
        nowhere = ip.is_multicast or ip in _THIS_NETWORK or ip == _BROADCAST
    return None if nowhere else ip


def places(addresses: Iterable[IPAddress]) -> tuple[tuple[IPAddress, ...], tuple[str, ...]]:
    """Those that are places, each once and in order, and what there is to say of the others."""
    kept: set[IPAddress] = set()
    left_out: set[IPAddress] = set()
    for ip in addresses:
        where = place(ip)
        if where is None:
            left_out.add(ip)
        else:
            kept.add(where)
    return tuple(sorted(kept, key=_order)), _left_out(sorted(left_out, key=_order))


def choose(weighted: Weighted) -> tuple[tuple[Found, ...], tuple[str, ...]]:
    """The answer, in the order of addresses, so that every node takes the same; and what to say of it."""
    ordered = sorted(weighted, key=lambda where: (_order(where[0]), where[1]))
    problems: tuple[str, ...] = ()
    if len(ordered) > FOUND_MAX:
        problems = (f"more than {FOUND_MAX} addresses; only the first in their order are used",)
    found = tuple(Found(_written(ip, port), weighted[ip, port]) for ip, port in ordered[:FOUND_MAX])
    return found, problems


def _order(ip: IPAddress) -> tuple[int, int]:
    return ip.version, int(ip)


def _written(ip: IPAddress, port: int) -> str:
    return f"[{ip}]:{port}" if ip.version == 6 else f"{ip}:{port}"


def _left_out(addresses: list[IPAddress]) -> tuple[str, ...]:
    if not addresses:
        return ()
    named = ", ".join(map(str, addresses[:_NAMED_MAX]))
    more = " and others" if len(addresses) > _NAMED_MAX else ""
    return (f"nobody can be connected to at {named}{more}",)
