"""``HOST:PORT`` text, the sockets it is bound to, and networks."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Iterable

from lbcore.host import somaxconn

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAPPED = ipaddress.IPv6Address("::ffff:0:0").packed[:12]  # RFC 4291, 2.5.5.2
_MAPPED_BITS = 96


def split_address(text: object) -> tuple[IPAddress, int]:
    """``"127.0.0.1:80"`` or ``"[::1]:80"`` as (IP address, port).

    Raises:
        TypeError, ValueError: saying what is wrong.
    """
    if not isinstance(text, str):
        raise TypeError(f"address: 'HOST:PORT' as text, not {text!r}")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"address: expected HOST:PORT, not {text!r}")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        ip = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        raise ValueError(f"address: an IP address, not {host!r}") from None
    if ip.version == 6 and not bracketed:
        raise ValueError(f"address: an IPv6 address goes in brackets: [{host}]:{port}")
    if ip.version == 4 and bracketed:
        raise ValueError(f"address: only an IPv6 address goes in brackets, not {host!r}")
    return ip, int(port)


NETWORKS_MAX = 64


def read_networks(name: str, networks: object) -> tuple[tuple[bytes, int], ...]:
    """``"10.0.0.0/8"``, ``"2001:db8::1"``, ... as (address, bits that count), each address in network order.

    IPv4 inside of IPv6 is IPv4.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if isinstance(networks, str | bytes) or not isinstance(networks, Iterable):
        raise TypeError(f"{name}: a sequence of networks, not {networks!r}")
    found = tuple(_read_network(name, network) for network in networks)
    if len(found) > NETWORKS_MAX:
        raise ValueError(f"{name}: at most {NETWORKS_MAX} networks, not {len(found)}")
    return found


def _read_network(name: str, text: object) -> tuple[bytes, int]:
    if not isinstance(text, str):
        raise TypeError(f"{name}: networks as text, not {text!r}")
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if "%" in text:
        raise ValueError(f"{name}: a network without a zone, not {text!r}")
    packed, bits = network.network_address.packed, network.prefixlen
    if bits >= _MAPPED_BITS and packed.startswith(_MAPPED):
        return packed[len(_MAPPED) :], bits - _MAPPED_BITS
    return packed, bits


UNIX = "unix:"
UNIX_PATH_MAX = 107  # bytes, unix(7)


def socket_address(text: object) -> bytes:
    """``HOST:PORT`` or ``unix:/PATH`` as the bytes of a sockaddr_in, sockaddr_in6 or sockaddr_un.

    Raises:
        TypeError, ValueError: saying what is wrong.
    """
    if isinstance(text, str) and text.startswith(UNIX):
        return _unix_address(text)
    ip, port = split_address(text)
    if ip.version == 4:
        return struct.pack("=HH4s8x", socket.AF_INET, socket.htons(port), ip.packed)
    return struct.pack("=HHI16sI", socket.AF_INET6, socket.htons(port), 0, ip.packed, 0)


def _unix_address(text: str) -> bytes:
    path = os.fsencode(text.removeprefix(UNIX))
    if not path.startswith(b"/") or b"\0" in path:
        raise ValueError(f"address: 'unix:' and an absolute path, not {text!r}")
    if len(path) > UNIX_PATH_MAX:
        raise ValueError(f"address: a path of at most {UNIX_PATH_MAX} bytes, not {len(path)}")
    return struct.pack("=H", socket.AF_UNIX) + path + b"\0"


def bound_socket(text: str) -> socket.socket:
    """A non-blocking TCP socket bound to the address; ``[::]`` takes both families.

    Raises:
        OSError: naming the address.
        ValueError: it is none.
    """
    ip, port = split_address(text)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if str(ip) == "::" else 1)
        sock.bind((str(ip), port))
    except OSError as error:
        sock.close()
        raise _cannot_listen(text, error) from None
    return sock


def start_listening(sock: socket.socket, text: str) -> None:
    """Listens with the longest queue the kernel allows. Raises OSError naming the address."""
    try:
        sock.listen(somaxconn())
    except OSError as error:
        raise _cannot_listen(text, error) from None


def bound_address(sock: socket.socket) -> str:
    """``HOST:PORT`` a socket is bound to."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _cannot_listen(text: str, error: OSError) -> OSError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OSError(error.errno, f"cannot listen on {text}: {reason}")
