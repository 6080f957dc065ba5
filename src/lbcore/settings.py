"""How a listener speaks TLS."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

Pem = str | bytes | os.PathLike[str]


@dataclass(frozen=True)
class ServerTLS:
    """Server side of mutual TLS 1.3. Neither the version nor the client certificate is optional.

    Attributes:
        cert: the server's certificate chain, leaf first: a path, or PEM as bytes.
        key: its private key: a path, or PEM as bytes.
        client_ca: the one CA that issues client certificates: a path, or PEM as bytes.
        alpn: application protocols offered (RFC 7301), most wanted first.
    """

    cert: Pem
    key: Pem = field(repr=False)
    client_ca: Pem
    alpn: Sequence[str] = ()


def read_pem(source: Pem) -> bytes:
    """The PEM text behind a path, or the bytes themselves.

    Raises:
        OSError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return source
    return Path(source).read_bytes()
