"""The proxies under test, one file each; base.py has what they share."""

from __future__ import annotations

from .base import Job, Limit, Proxy, ProxyFailed, ProxyMissing, Running, Version, running, serial_hex
from .envoy import Envoy
from .haproxy import HAProxy
from .lbctl import BareLoadBalancer, LoadBalancer, LoadBalancerOnOpenSSL
from .nginx import Nginx
from .stunnel import Stunnel

#: The first is what the others are held against.
PROXIES: tuple[Proxy, ...] = (
    LoadBalancer(),
    LoadBalancerOnOpenSSL(),
    HAProxy(),
    Nginx(),
    Envoy(),
    Stunnel(),
)

__all__ = [
    "PROXIES",
    "BareLoadBalancer",
    "Envoy",
    "HAProxy",
    "Job",
    "Limit",
    "LoadBalancer",
    "LoadBalancerOnOpenSSL",
    "Nginx",
    "Proxy",
    "ProxyFailed",
    "ProxyMissing",
    "Running",
    "Stunnel",
    "Version",
    "running",
    "serial_hex",
]
