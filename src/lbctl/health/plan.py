"""A target, made ready to be checked again and again."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass

from lbcore.addresses import UNIX, socket_address, split_address
from lbctl.health.context import Contexts
from lbctl.health.settings import CheckSettings, CheckTLS, Target


@dataclass(frozen=True, slots=True)
class Plan:
    """What a check needs.

    Attributes:
        target: what is checked.
        family: of the socket.
        address: as `socket.connect` takes it; never a name.
        context: for TLS, or None.
        name: what the certificate must say, or None.
    """

    target: Target
    family: socket.AddressFamily
    address: tuple[str, int] | bytes
    context: ssl.SSLContext | None
    name: str | None

    @property
    def settings(self) -> CheckSettings:
        return self.target.settings


def make_plan(target: Target, contexts: Contexts) -> Plan:
    """The plan for a target.

    Raises:
        OSError: a file cannot be read.
        ValueError: the address is none, a file is not what it should be, or TLS lacks a name.
    """
    family, address = _socket_address(target.address)
    tls = target.settings.tls
    if tls is None:
        return Plan(target, family, address, None, None)
    return Plan(target, family, address, contexts.get(tls), _name(tls, address))


def _socket_address(text: str) -> tuple[socket.AddressFamily, tuple[str, int] | bytes]:
    if text.startswith(UNIX):
        socket_address(text)  # raises
        return socket.AF_UNIX, os.fsencode(text.removeprefix(UNIX))
    ip, port = split_address(text)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    return family, (socket.inet_ntop(family, ip.packed), port)


def _name(tls: CheckTLS, address: tuple[str, int] | bytes) -> str:
    if tls.verify_name is not None:
        try:
            return str(ipaddress.ip_address(tls.verify_name))
        except ValueError:
            return tls.verify_name
    if isinstance(address, bytes):
        raise ValueError("tls: a unix socket has no name; say which with verify_name")
    return address[0]
