"""What is checked, and how; plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lbcore.settings import check_name

EXPECT_MAX = 4096  # bytes


@dataclass(frozen=True)
class CheckTLS:
    """How a check speaks TLS 1.3 to an upstream, whose certificate is always verified.

    Attributes:
        ca: the CA certificates that the upstream's must come from, PEM.
        cert: the certificate chain that we show it, PEM, leaf first; None: none.
        key: the private key of that, PEM, not encrypted.
        verify_name: what its certificate must say: a host name, which it is told as well (SNI), or an IP
            address; None: the address that it has.

    Raises:
        ValueError: naming the attribute.
    """

    ca: Path
    cert: Path | None = None
    key: Path | None = None
    verify_name: str | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert, key: both or neither")
        if self.verify_name is not None:
            check_name(self.verify_name)


@dataclass(frozen=True)
class CheckSettings:
    """How upstreams are checked.

    Attributes:
        type: whether a check is a TCP connection, or TLS on top of one.
        interval: seconds from the start of a check to the start of the next, which waits for the end of the
            one before.
        timeout: seconds for a whole check, from connecting to the last byte expected.
        rise: checks passed in a row before an upstream that is down is up.
        fall: checks failed in a row before one that is up is down.
        jitter: the share of the interval of which a random part is left off, so that checks do not march in
            step; an interval is never longer than it says.
        send: what the upstream is told, inside TLS.
        expect: what its answer must begin with; None: a connection, and a handshake, are enough.
        tls: for the type "tls", and only there.
        proxy: a PROXY protocol header that is sent before everything else, TLS included.

    Raises:
        ValueError: naming the attribute.
    """

    type: Literal["tcp", "tls"] = "tcp"
    interval: float = 2.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    jitter: float = 0.1
    send: bytes | None = field(default=None, repr=False)  # it may hold a password
    expect: bytes | None = None
    tls: CheckTLS | None = None
    proxy: bytes | None = None

    def __post_init__(self) -> None:
        if self.type not in ("tcp", "tls"):
            raise ValueError(f"type: 'tcp' or 'tls', not {self.type!r}")
        for name in ("interval", "timeout"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}: more than 0 seconds, not {value!r}")
        for name in ("rise", "fall"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name}: at least 1, not {value!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter: a share from 0 to less than 1, not {self.jitter!r}")
        if self.expect is not None and not 1 <= len(self.expect) <= EXPECT_MAX:
            raise ValueError(f"expect: 1 to {EXPECT_MAX} bytes, not {len(self.expect)}")
        if (self.tls is not None) != (self.type == "tls"):
            raise ValueError("tls: needed for the type 'tls', and only there")


@dataclass(frozen=True)
class Target:
    """An upstream to check.

    Attributes:
        app: whose upstream it is; what came of a check is reported by app and address.
        address: ``HOST:PORT`` with an IP address, ``[v6]:PORT``, or ``unix:/PATH``.
        settings: how.
    """

    app: str
    address: str
    settings: CheckSettings = field(default_factory=CheckSettings)
