"""Which name servers are asked, and how: /etc/resolv.conf (resolv.conf(5)), as dnspython understands it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lbctl.config.values import split_address
from lbctl.logs.printable import printable
from lbctl.names.system_file import SystemFile
from lbctl.names.values import LookupFailed

if TYPE_CHECKING:
    import dns.asyncresolver

RESOLV_CONF = Path("/etc/resolv.conf")
LOCAL_SERVER = "127.0.0.1"  # where none is named
TRY_MIN, TRY_MAX = 1, 2  # seconds one server has for an answer; then another, or the same again, is asked
DNS_PORT = 53


class Servers:
    """Makes the resolver of dnspython, anew when the file has changed.

    Args:
        nameservers: IP addresses, with or without a port, instead of those of the file; the rest of the
            file still counts.
        path: the file.

    Thread-safety: none; one thread uses it.

    Raises:
        ValueError: a name server is not an address.
    """

    def __init__(self, nameservers: Sequence[str] | None = None, path: Path = RESOLV_CONF) -> None:
        self._nameservers = None if nameservers is None else [_split(text) for text in nameservers]
        self._path = path
        self._file = SystemFile(path, self._understand)

    def current(self) -> dns.asyncresolver.Resolver:
        """The resolver as the file is now.

        Raises:
            LookupFailed: the file cannot be read or makes no sense.
        """
        return self._file.value()

    def _understand(self, text: str) -> dns.asyncresolver.Resolver:
        import dns.asyncresolver
        import dns.exception
        import dns.nameserver
        import dns.resolver

        try:
            resolver = dns.asyncresolver.Resolver(configure=False)  # looks at the name of this machine
            resolver.read_resolv_conf(io.StringIO(text))
        except dns.resolver.NoResolverConfiguration:
            resolver.nameservers = [LOCAL_SERVER]
        except (dns.exception.DNSException, ValueError) as error:
            raise LookupFailed(f"{self._path} makes no sense: {printable(str(error))}") from None
        if self._nameservers is not None:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in self._nameservers]
        resolver.timeout = min(max(resolver.timeout, TRY_MIN), TRY_MAX)
        return resolver


def _split(text: str) -> tuple[str, int]:
    """Address and port of "10.0.0.2", "10.0.0.2:53", "[::1]:53" or "::1"."""
    bare = text.count(":") > 1 and not text.startswith("[")
    if bare or ":" not in text:
        text = f"[{text}]:{DNS_PORT}" if bare else f"{text}:{DNS_PORT}"
    ip, port = split_address(text)
    return str(ip), port
