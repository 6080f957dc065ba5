"""The address of a web service that a configuration names: a store of clients, a webhook.

No state: safe from any thread.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

from lbctl.config.faults import Fault, Path
from lbctl.config.values import shorten

URL_PATTERN = r"^https?://[^\s{}#]+$"

_URL_MAX = 2048  # characters
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class WebUrl:
    """A URL in its parts.

    Attributes:
        secure: https.
        host: a name or an IP address, without brackets.
        port: where it listens.
        authority: host and port as a request names them.
        target: path and query.
    """

    secure: bool
    host: str
    port: int
    authority: str
    target: str

    @classmethod
    def parse(cls, text: str, *, example: str, placeholder: str | None = None) -> Self:
        """The parts of a URL.

        Args:
            text: the URL.
            example: what one looks like.
            placeholder: what the path or the query has to hold once, in braces.

        Raises:
            ValueError: it is none; the text says how to mend it.
        """
        if len(text) > _URL_MAX or not text.isascii() or not text.isprintable() or " " in text:
            message = f"expected a URL of at most {_URL_MAX} printable ASCII characters, without spaces"
            raise ValueError(message)
        parts, host, port = _split(text, example)
        if "@" in parts.netloc:
            raise ValueError("no user or password belongs into it")
        if "#" in text:
            raise ValueError("'#' and what follows it is never sent; remove it")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        _check_braces(text, target, placeholder)
        _check_host(host, parts.scheme)
        shown = f"[{host}]" if ":" in host else host
        return cls(
            secure=parts.scheme == "https",
            host=host,
            port=port or _PORTS[parts.scheme],
            authority=shown if port is None else f"{shown}:{port}",
            target=target,
        )


def parse_webhook(text: str) -> WebUrl:
    """The parts of the URL that alerts are posted to.

    Raises:
        ValueError: it is none; the text says how to mend it.
    """
    return WebUrl.parse(text, example="https://hooks.internal/lb")


def unused_by_http(at: Path, section: dict[str, Any], url: str, keys: tuple[str, ...]) -> Iterator[Fault]:
    """A fault for each of the keys that says how to do TLS where the URL of that section is http."""
    if is_http(section.get(url)):
        for key in keys:
            if section.get(key) is not None:
                yield Fault((*at, key), "http does not use it; remove it, or write https", at="key")


def is_http(url: object) -> bool:
    """Whether a value as it was written is a URL without TLS."""
    return isinstance(url, str) and url.lower().startswith("http:")


def _split(text: str, example: str) -> tuple[SplitResult, str, int | None]:
    """The URL's parts, its host and its port if there is one."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or parts.scheme not in _PORTS or port == 0:
        raise ValueError(f"expected a URL such as {example}")
    return parts, host, port


def _check_braces(text: str, target: str, placeholder: str | None) -> None:
    if placeholder is None:
        if re.search(r"[{}]", text):
            raise ValueError("expected no braces; nothing is put in their place")
    elif target.count(placeholder) != 1 or re.search(r"[{}]", text.replace(placeholder, "")):
        raise ValueError(f"expected {placeholder} once, in the path or the query, and no other braces")


def _check_host(host: str, scheme: str) -> None:
    address = _address(host)
    if address is None and (len(host) > 253 or _HOST.fullmatch(host) is None):
        raise ValueError(f"'{shorten(host)}' is neither a host name nor an IP address")
    if scheme == "http" and (address is None or not address.is_loopback):
        raise ValueError("expected https://; http is for loopback addresses such as 127.0.0.1 only")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
