"""What the loops run on: limits and applications of several sizes."""

from __future__ import annotations

from typing import Any

import lbcore

ROOMY: dict[str, Any] = {"max_open": 1_000_000}
RATED: dict[str, Any] = {**ROOMY, "rate": 1e6, "burst": 10**7}
WINDOWED: dict[str, Any] = {**RATED, "window": (65536, 1e-3)}


def nested(depth: int, **limits: Any) -> lbcore.RateLimitManager:
    """So many scopes, one in the other."""
    manager = lbcore.RateLimitManager("outer", scope="global", **limits)
    for number in range(depth - 1):
        manager = lbcore.RateLimitManager(f"inner {number}", parent=manager, **limits)
    return manager


def application(upstreams: int) -> lbcore.Application:
    """So many upstreams that nobody connects to."""
    servers = [lbcore.UpstreamServer(f"127.0.0.1:{1000 + number}") for number in range(upstreams)]
    return lbcore.Application("picked", servers)


def full() -> lbcore.RateLimitManager:
    """Its only slot is taken."""
    manager = lbcore.RateLimitManager("full", max_open=1)
    manager.connection_opened()
    return manager
