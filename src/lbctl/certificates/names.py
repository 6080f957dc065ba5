"""The names people give: of a certificate, of a CA, of a server's hosts."""

from __future__ import annotations

import ipaddress
import re

from cryptography import x509

from lbctl.config.values import shorten
from lbctl.errors import LbctlError

_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")  # 64 is the most a common name holds (RFC 5280)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?")
_RESERVED = frozenset({"ca"})


def check_stem(name: str) -> str:
    """A name that is safe as the name of two files and of a client in the configuration.

    Raises:
        LbctlError: it is not.
    """
    if _STEM.fullmatch(name) is None:
        raise LbctlError(
            f"'{shorten(name)}' cannot name a certificate: 1 to 64 letters, digits and _ . @ + -, "
            "not starting with a dot, a plus or a dash"
        )
    if name.casefold() in _RESERVED:
        raise LbctlError(f"'{name}' is the name of the CA's own files; choose another")
    return name


def check_common_name(name: str) -> str:
    """The name of a CA.

    Raises:
        LbctlError: no certificate can carry it.
    """
    if not 1 <= len(name) <= 64 or not name.isprintable() or not name.strip():
        raise LbctlError("the name of a CA has 1 to 64 printable characters")
    return name


def alternative_name(text: str) -> x509.GeneralName:
    """A host name or an IP address a server answers to.

    Raises:
        LbctlError: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        pass
    numeric = re.fullmatch(r"[0-9.]+", text) is not None  # meant as an address, and none
    if numeric or len(text) > 253 or _HOST.fullmatch(text) is None:
        raise LbctlError(
            f"'{shorten(text)}' is neither a host name nor an IP address "
            "(write names with other letters in their xn-- form)"
        )
    return x509.DNSName(text)


def spell(name: x509.GeneralName) -> str:
    """An alternative name in words: "localhost", "127.0.0.1", "URI:spiffe://..."."""
    if isinstance(name, x509.DNSName | x509.IPAddress):
        return str(name.value)
    if isinstance(name, x509.UniformResourceIdentifier):
        return f"URI:{name.value}"
    if isinstance(name, x509.RFC822Name):
        return f"email:{name.value}"
    if isinstance(name, x509.DirectoryName):
        return f"DirName:{name.value.rfc4514_string()}"
    return type(name).__name__
