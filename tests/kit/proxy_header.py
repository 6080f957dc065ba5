"""Reading a PROXY header as an upstream does, and writing one as a balancer in front does (haproxy.org,
proxy-protocol.txt)."""

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


# What version 2 says of a connection: whose it is, and of which kind.
LOCAL, PROXY = 0x20, 0x21
UNSPEC, TCP4, UDP4, TCP6, UNIX = 0x00, 0x11, 0x12, 0x21, 0x31
CRC32C, NOOP = 0x03, 0x04


def line(source: str, target: str) -> bytes:
    """A header of version 1 with two ends, ``host:port``."""
    (host, port), (target_host, target_port) = _split(source), _split(target)
    return f"PROXY TCP{host.version} {host} {target_host} {port} {target_port}\r\n".encode()


def binary(source: str, target: str, fields: bytes = b"") -> bytes:
    """A header of version 2 with two ends, ``host:port``, and encoded fields."""
    (host, port), (target_host, target_port) = _split(source), _split(target)
    body = host.packed + target_host.packed + struct.pack(">HH", port, target_port)
    return block(PROXY, TCP4 if host.version == 4 else TCP6, body + fields)


def block(command: int, family: int, body: bytes = b"") -> bytes:
    """A header of version 2, whatever is in it."""
    return SIGNATURE + struct.pack(">BBH", command, family, len(body)) + body


def encode_field(kind: int, value: bytes) -> bytes:
    """One field of version 2."""
    return struct.pack(">BH", kind, len(value)) + value


def with_checksum(source: str, target: str, before: bytes = b"", after: bytes = b"") -> bytes:
    """A header of version 2 with a right checksum between other fields."""
    empty = binary(source, target, before + encode_field(CRC32C, bytes(4)) + after)
    crc = _crc32c(empty).to_bytes(4, "big")
    return binary(source, target, before + encode_field(CRC32C, crc) + after)


def _crc32c(data: bytes) -> int:
    """Castagnoli's, as RFC 3309 has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _split(end: str) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]:
    host, _, port = end.rpartition(":")
    return ipaddress.ip_address(host.strip("[]")), int(port)


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
