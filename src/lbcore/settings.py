"""How a listener speaks TLS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Pem = str | bytes | os.PathLike[str]
_ONE = (str, bytes, os.PathLike)
ALPN_MAX = 16


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
