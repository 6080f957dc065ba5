"""How listeners and upstreams speak TLS."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Pem = str | bytes | os.PathLike[str]
_ONE = (str, bytes, os.PathLike)
ALPN_MAX = 16
HOST_NAME_MAX = 253
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


@dataclass(frozen=True)
class ServerTLS:
    """Server side of mutual TLS 1.3. Neither the version nor the client certificate is optional.

    Attributes:
        cert: the server's certificate chain, leaf first: a path, or PEM as bytes.
        key: its private key: a path, or PEM as bytes.
        client_ca: the one CA that issues client certificates: a path, or PEM as bytes.
        alpn: application protocols offered (RFC 7301), most wanted first.
        crl: certificate revocation lists (RFC 5280) of ``client_ca``: a path, PEM as bytes, or a sequence
            of those. Read by ``Engine.listen``, which needs the package ``cryptography`` for that. When
            one is out of date, every client is refused (``crl_expired``).

    Raises:
        TypeError, ValueError: naming the attribute.
    """

    cert: Pem
    key: Pem = field(repr=False)
    client_ca: Pem
    alpn: Sequence[str] = ()
    crl: Pem | Sequence[Pem] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.alpn, str | bytes):
            raise TypeError(f"alpn: a sequence of protocol names, not {self.alpn!r}")
        for name in self.alpn:
            if not isinstance(name, str):
                raise TypeError(f"alpn: protocol names as text, not {name!r}")
            if not 1 <= len(name.encode()) <= 255 or "\0" in name:
                raise ValueError(f"alpn: protocol names of 1 to 255 bytes, not {name!r}")
        if len(self.alpn) > ALPN_MAX:
            raise ValueError(f"alpn: at most {ALPN_MAX} protocols")
        if self.crl is not None and not isinstance(self.crl, _ONE):
            if not isinstance(self.crl, Sequence) or not self.crl:
                raise TypeError(f"crl: a path, PEM as bytes, a sequence of those, or None, not {self.crl!r}")
            for one in self.crl:
                if not isinstance(one, _ONE):
                    raise TypeError(f"crl: paths or PEM as bytes, not {one!r}")


@dataclass(frozen=True)
class UpstreamTLS:
    """How to speak TLS 1.3 to an upstream. Its certificate is always verified.

    Attributes:
        ca: the CA certificates that the upstream's certificate must come from: a path, or PEM as bytes.
        cert: the certificate chain that we show it, leaf first: a path, PEM as bytes, or None.
        key: the private key of that: a path, PEM as bytes, or None.
        verify_name: what its certificate must say: a host name, which it is told as well (SNI), or an IP
            address; None: the address that it has.

    Raises:
        TypeError, ValueError: naming the attribute.
    """

    ca: Pem
    cert: Pem | None = None
    key: Pem | None = field(default=None, repr=False)
    verify_name: str | None = None

    def __post_init__(self) -> None:
        for name in ("ca", "cert", "key"):
            value = getattr(self, name)
            if not isinstance(value, _ONE) and (value is not None or name == "ca"):
                raise TypeError(f"{name}: a path or PEM as bytes, not {type(value).__name__}")
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert, key: both or neither")
        if self.verify_name is not None:
            if not isinstance(self.verify_name, str):
                raise TypeError(f"verify_name: a name or None, not {self.verify_name!r}")
            check_name(self.verify_name)


def check_name(name: str) -> None:
    """Raises ValueError unless it is a host name (RFC 1123) or an IP address."""
    if is_ip_address(name):
        return
    labels = name.split(".")
    if len(name) > HOST_NAME_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"verify_name: a host name or an IP address, not {name!r}")


def is_ip_address(name: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def revocation_lists(settings: ServerTLS) -> tuple[Pem, ...]:
    """``crl`` as a sequence."""
    if settings.crl is None:
        return ()
    return (settings.crl,) if isinstance(settings.crl, _ONE) else tuple(settings.crl)


def read_pem(source: Pem) -> bytes:
    """The PEM text behind a path, or the bytes themselves.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    return Path(source).read_bytes()
