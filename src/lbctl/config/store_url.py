"""The address of a client store: ``https://clients.internal/v1/serials/{serial}``.

No state: safe from any thread.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from lbctl.config.values import shorten

PLACEHOLDER = "{serial}"
URL_PATTERN = r"^https?://[^\s{}#]+\{serial\}[^\s{}#]*$"

_URL_MAX = 2048  # characters
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class StoreUrl:
    """A URL in its parts.

    Attributes:
        secure: https.
        host: a name or an IP address, without brackets.
        port: where it listens.
        authority: host and port as a request names them.
        target: path and query, with the placeholder.
    """

    secure: bool
    host: str
    port: int
    authority: str
    target: str

    def for_serial(self, digits: str) -> str:
        """The target of the request about a serial: whole octets in upper-case hexadecimal."""
        return self.target.replace(PLACEHOLDER, digits)


def parse_store_url(text: str) -> StoreUrl:
    """The parts of a URL.

    Raises:
        ValueError: it is none that a store can have; the text says how to mend it.
    """
    if len(text) > _URL_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError(f"expected a URL of at most {_URL_MAX} printable ASCII characters, without spaces")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in _PORTS or port == 0:
        raise ValueError("expected a URL such as https://clients.internal/v1/serials/{serial}")
    if "@" in parts.netloc:
        raise ValueError("no user or password belongs into it; the store knows us by cert and key")
    if "#" in text:
        raise ValueError("'#' and what follows it is never sent; remove it")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if target.count(PLACEHOLDER) != 1 or re.search(r"[{}]", text.replace(PLACEHOLDER, "")):
        raise ValueError("expected {serial} once, in the path or the query, and no other braces")
    address = _address(host)
    if address is None and (len(host) > 253 or _HOST.fullmatch(host) is None):
        raise ValueError(f"'{shorten(host)}' is neither a host name nor an IP address")
    if parts.scheme == "http" and (address is None or not address.is_loopback):
        raise ValueError("expected https://; http is for loopback addresses such as 127.0.0.1 only")
    shown = f"[{host}]" if ":" in host else host
    return StoreUrl(
        secure=parts.scheme == "https",
        host=host,
        port=port or _PORTS[parts.scheme],
        authority=shown if port is None else f"{shown}:{port}",
        target=target,
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
