"""What is timed: loops, and the limits, applications and configurations of several sizes they run on."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lbcore

from .compiled import loops

CLIENTS = 2000  # in the configuration that is loaded
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


def picks(upstreams: int, *, affinity: bool = False) -> Any:
    return loops().Picks(application(upstreams), affinity=affinity)


def full() -> lbcore.RateLimitManager:
    """Its only slot is taken."""
    manager = lbcore.RateLimitManager("full", max_open=1)
    manager.connection_opened()
    return manager


def configuration(folder: Path, clients: int = CLIENTS) -> Path:
    """A file with so many clients: each has a certificate, an application and one of ten limits."""
    lines = [
        "version: 1",
        "tls: {cert: server.pem, key: server.key, client_ca: ca.pem}",
        "limits:",
        *(f"  class-{number}: {{concurrent: {number + 1}}}" for number in range(10)),
        "apps:",
        "  orders:",
        "    listen: 127.0.0.1:7306",
        "    upstreams: [{address: 127.0.0.1:5432}, {address: 127.0.0.1:5433}]",
        "clients:",
    ]
    for number in range(clients):
        lines += [
            f"  client-{number}:",
            f'    serials: ["{10**30 + number:X}"]',
            "    apps: [orders]",
            f"    limits: {{orders: class-{number % 10}}}",
        ]
    path = folder / "lb.yaml"
    path.write_text("\n".join(lines) + "\n")
    return path


def rows() -> dict[str, Callable[[], Any]]:
    """What is timed in C: its name, and what makes the loop."""
    native = loops()
    return {
        "limiter: cap": lambda: native.Limits(nested(1, **ROOMY)),
        "limiter: cap and rate": lambda: native.Limits(nested(1, **RATED)),
        "limiter: cap, rate and window": lambda: native.Limits(nested(1, **WINDOWED)),
        "limiter: three scopes, cap": lambda: native.Limits(nested(3, **ROOMY)),
        "limiter: three scopes, cap and rate": lambda: native.Limits(nested(3, **RATED)),
        "limiter: refused by the cap": lambda: native.Refusals(full()),
        **{f"pick: {n} upstreams": partial(picks, n) for n in (2, 16, 256)},
        **{f"pick: {n} upstreams, affinity": partial(picks, n, affinity=True) for n in (2, 16, 256)},
        "verdict: hit": lambda: native.Verdicts(hit=True),
        "verdict: miss": lambda: native.Verdicts(hit=False),
        "timer: arm and disarm": lambda: native.Timers("arm"),
        "timer: move": lambda: native.Timers("move"),
        "timer: arm and expire": lambda: native.Timers("expire"),
        "record: line, TLS": lambda: native.Lines(tls=True),
        "record: line, plaintext": lambda: native.Lines(tls=False),
    }
