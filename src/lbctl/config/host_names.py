"""The names that stand for upstreams: host names (RFC 1123) and names of SRV records (RFC 2782)."""

from __future__ import annotations

import ipaddress
import re

from lbctl.config.values import shorten

NAME_MAX = 253  # characters, RFC 1035 without the root
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def parse_host_name(text: str) -> str:
    """A host name in its one spelling: lower case; a dot at its end means that it is whole.

    Raises:
        ValueError: it is none.
    """
    try:
        ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        pass
    else:
        raise ValueError(f"expected a name; for '{shorten(text)}' write address: HOST:PORT")
    if ":" in text:
        raise ValueError("expected a name without a port")
    if not _is_name(text):
        raise ValueError(
            "expected a host name: letters, digits and hyphens between dots; others as Punycode (xn--…)"
        )
    return text.lower()


def parse_service_name(text: str) -> str:
    """A name of SRV records: ``_service._protocol.name``.

    Raises:
        ValueError: it is none.
    """
    labels = text.split(".")
    if not _is_name(text) or len(labels) < 3 or not all(label.startswith("_") for label in labels[:2]):
        raise ValueError("expected a name of SRV records such as _postgresql._tcp.internal")
    return text.lower()


def _is_name(text: str) -> bool:
    whole = text.removesuffix(".")
    return len(whole) <= NAME_MAX and all(_LABEL.fullmatch(label) for label in whole.split("."))
