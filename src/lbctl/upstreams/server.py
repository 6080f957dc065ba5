"""An upstream of the configuration as the engine and the health checks take it."""

from __future__ import annotations

import lbcore
from lbctl.config.model import ActiveHealth, App, Upstream
from lbctl.health import CheckSettings, CheckTLS

# What a health check says first where upstreams expect a PROXY header: it is the balancer itself that
# comes, not for a client. Sections 2.1 and 2.2 of the PROXY protocol.
PROXY_UNKNOWN = b"PROXY UNKNOWN\r\n"
PROXY_LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


def server(app: App, upstream: Upstream, address: str, weight: int) -> lbcore.UpstreamServer:
    """A server at that address.

    Raises:
        ValueError: the engine does not take it.
    """
    return lbcore.UpstreamServer(
        address, weight, max_connections=upstream.max_connections, tls=_tls(app, upstream)
    )


def _tls(app: App, upstream: Upstream) -> lbcore.UpstreamTLS | None:
    settings = app.upstream_tls
    if settings is None:
        return None
    return lbcore.UpstreamTLS(
        ca=settings.ca,
        cert=settings.cert,
        key=settings.key,
        verify_name=settings.verify_name or _name(upstream),
    )


def _name(upstream: Upstream) -> str | None:
    """What its certificate says unless the configuration says so; None: its address."""
    return upstream.dns.removesuffix(".") if upstream.dns is not None else None


def check(app: App, active: ActiveHealth, upstream: Upstream) -> CheckSettings:
    """How to check it."""
    tls = None
    if active.type == "tls" and app.upstream_tls is not None:  # a configuration without it does not load
        settings = app.upstream_tls
        tls = CheckTLS(settings.ca, settings.cert, settings.key, settings.verify_name or _name(upstream))
    proxy = {None: None, "v1": PROXY_UNKNOWN}.get(app.proxy_protocol, PROXY_LOCAL)
    return CheckSettings(
        type=active.type,
        interval=active.interval,
        timeout=active.timeout,
        rise=active.rise,
        fall=active.fall,
        jitter=active.jitter,
        send=active.send,
        expect=active.expect,
        tls=tls,
        proxy=proxy,
    )
