"""Limits of plaintext listeners: one RateLimitManager per source address.

Used by the engine's policy thread only.
"""

from __future__ import annotations

import time
from collections import OrderedDict

from lbcore.limits import LimitClass, RateLimitManager

#: Seconds a worker may remember an address's manager; the manager is kept longer than that.
REMEMBERED = 60.0
ADDRESSES_MAX = 65536


class SourceLimits:
    """Managers by address, the longest unasked first; bounded.

    Only a manager without open connections that nobody asked for in a while is forgotten: a worker may
    still use it until its own memory of it has expired.
    """

    def __init__(self, limit_class: LimitClass) -> None:
        self._class = limit_class
        self._managers: OrderedDict[str, tuple[RateLimitManager, float]] = OrderedDict()
        refill = 0.0
        if limit_class.rate:
            refill = (limit_class.burst or max(1.0, limit_class.rate)) / limit_class.rate
        self._keep = REMEMBERED * 2 + refill

    def manager_for(self, address: str) -> RateLimitManager | None:
        """The address's manager, or None when there are too many addresses: refuse."""
        now = time.monotonic()
        known = self._managers.get(address)
        if known is None:
            self._forget(now)
            if len(self._managers) >= ADDRESSES_MAX:
                return None
            manager = RateLimitManager(
                address, max_open=self._class.max_open, rate=self._class.rate, burst=self._class.burst
            )
        else:
            manager = known[0]
        self._managers[address] = (manager, now)
        self._managers.move_to_end(address)
        return manager

    def _forget(self, now: float) -> None:
        for _ in range(2):
            if not self._managers:
                return
            address, (manager, asked) = next(iter(self._managers.items()))
            if asked + self._keep > now:
                return
            if manager.open:
                self._managers[address] = (manager, now)
                self._managers.move_to_end(address)
            else:
                del self._managers[address]
