"""Limits of plaintext listeners: one RateLimitManager per source.

A source is an IPv4 address, or the /64 network of an IPv6 address: that is what one host has to itself
(RFC 6177), and it could be another address of it for every connection.

Used by the engine's policy thread only.
"""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict

from lbcore.limit_values import LimitClass
from lbcore.limits import RateLimitManager

#: Seconds a worker may remember a source's manager; the manager is kept longer than that.
REMEMBERED = 60.0
SOURCES_MAX = 65536
IPV6_NETWORK = 64  # bits

_LOOKED_AT = 8  # old sources looked at for each new one


class SourceLimits:
    """Managers by source, the longest unasked first; bounded.

    A manager without open connections that nobody asked for in a while is forgotten; with the table
    full, the oldest such one is forgotten early, and starts afresh when its source comes back.
    """

    def __init__(self, limit_class: LimitClass) -> None:
        self._class = limit_class
        self._managers: OrderedDict[str, tuple[RateLimitManager, float]] = OrderedDict()
        self._keep = REMEMBERED * 2 + limit_class.refill

    def manager_for(self, packed: bytes) -> RateLimitManager | None:
        """The manager of an address's source.

        Args:
            packed: the address in network order, 4 or 16 bytes.

        Returns:
            RateLimitManager | None: None when there are too many sources with open connections: refuse.
        """
        source = source_of(packed)
        now = time.monotonic()
        known = self._managers.get(source)
        if known is not None:
            manager = known[0]
        elif self._make_room(now):
            manager = self._class.manager(source)
        else:
            return None
        self._managers[source] = (manager, now)
        self._managers.move_to_end(source)
        return manager

    def _make_room(self, now: float) -> bool:
        """Forgets what it can of the oldest; whether there is room for one more."""
        for _ in range(min(_LOOKED_AT, len(self._managers))):
            source, (manager, asked) = next(iter(self._managers.items()))
            if asked + self._keep > now and len(self._managers) < SOURCES_MAX:
                break
            if manager.open:
                self._managers.move_to_end(source)
            else:
                del self._managers[source]
        return len(self._managers) < SOURCES_MAX


def source_of(packed: bytes) -> str:
    """``"192.0.2.1"`` or ``"2001:db8::/64"``; an IPv4 address that came in over IPv6 is one of IPv4."""
    if len(packed) == 4:
        return str(ipaddress.IPv4Address(packed))
    address = ipaddress.IPv6Address(packed)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_NETWORK), strict=False))
