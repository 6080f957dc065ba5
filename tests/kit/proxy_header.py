"""Reading a PROXY header as an upstream does (haproxy.org, proxy-protocol.txt)."""

from __future__ import annotations

import ipaddress
import socket
import struct
from dataclasses import dataclass, field

from kit.sockets import read_exactly

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
UNIQUE_ID, SSL = 0x05, 0x20
SSL_VERSION, SSL_CN, SSL_CIPHER, SSL_CLIENT_CERT = 0x21, 0x22, 0x23, 0x28
CLIENT, SERIAL, APPLICATION = 0xE0, 0xE1, 0xE2


@dataclass(frozen=True)
class Header:
    """What it says.

    Attributes:
        version: 1 or 2.
        source, target: ``host:port``, or None where it does not tell.
        fields: type -> value, of version 2.
        ssl: the same of what is inside `SSL`; None: it is not there.
        flags: of `SSL`.
        verify: of `SSL`; 0: the certificate was verified.
    """

    version: int
    source: str | None
    target: str | None
    fields: dict[int, bytes] = field(default_factory=dict)
    ssl: dict[int, bytes] | None = None
    flags: int = 0
    verify: int = -1


def read_header(sock: socket.socket) -> Header:
    """Exactly the header, from a socket that begins with one.

    Raises:
        AssertionError: it does not.
    """
    first = read_exactly(sock, 12)
    if first == SIGNATURE:
        return _read_binary(sock)
    line = first
    while not line.endswith(b"\r\n"):
        line += read_exactly(sock, 1)
        assert len(line) <= 107, line
    return _parse_line(line)


def _parse_line(line: bytes) -> Header:
    words = line.decode("ascii").removesuffix("\r\n").split(" ")
    assert words[0] == "PROXY", words
    if words[1] == "UNKNOWN":
        return Header(1, None, None)
    _, protocol, source, target, source_port, target_port = words
    assert {ipaddress.ip_address(source).version, ipaddress.ip_address(target).version} == {int(protocol[3:])}
    return Header(1, _show(source, int(source_port)), _show(target, int(target_port)))


def _read_binary(sock: socket.socket) -> Header:
    command, family, length = struct.unpack(">BBH", read_exactly(sock, 4))
    body = read_exactly(sock, length)
    if command == 0x20:
        return Header(2, None, None, _fields(body))
    assert command == 0x21
    size = {0x11: 4, 0x21: 16}[family]
    hosts = [str(ipaddress.ip_address(body[at : at + size])) for at in (0, size)]
    ports = struct.unpack(">HH", body[2 * size : 2 * size + 4])
    fields = _fields(body[2 * size + 4 :])
    ends = [_show(host, port) for host, port in zip(hosts, ports, strict=True)]
    if SSL not in fields:
        return Header(2, *ends, fields)
    flags, verify = struct.unpack(">BI", fields[SSL][:5])
    return Header(2, *ends, fields, _fields(fields[SSL][5:]), flags, verify)


def _fields(data: bytes) -> dict[int, bytes]:
    found = {}
    while data:
        kind, length = struct.unpack(">BH", data[:3])
        assert len(data) >= 3 + length
        assert kind not in found
        found[kind] = data[3 : 3 + length]
        data = data[3 + length :]
    return found


def _show(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
