"""/etc/hosts (hosts(5)), and `localhost`."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from lbctl.names.system_file import SystemFile
from lbctl.names.values import IPAddress

HOSTS = Path("/etc/hosts")
HOSTS_TTL = 10.0  # seconds until the file is looked at again
_LOOPBACK: tuple[IPAddress, ...] = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def understand_hosts(text: str) -> dict[str, tuple[IPAddress, ...]]:
    """The addresses of each name. Lines that say nothing are passed over, as everybody does."""
    known: dict[str, tuple[IPAddress, ...]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            continue
        for name in names:
            key = _key(name)
            known[key] = (*known.get(key, ()), ip)
    return known


class HostsFile:
    """Names that need no DNS.

    Thread-safety: none; one thread uses it.
    """

    def __init__(self, path: Path = HOSTS) -> None:
        self._file = SystemFile(path, understand_hosts)

    def find(self, name: str) -> tuple[IPAddress, ...]:
        """The addresses of a name, none when DNS has to be asked.

        Names below `localhost` are the loopback whether the file has them or not (RFC 6761, 6.3).

        Raises:
            LookupFailed: the file cannot be read.
        """
        key = _key(name)
        found = self._file.value().get(key, ())
        if not found and (key == "localhost" or key.endswith(".localhost")):
            return _LOOPBACK
        return found


def _key(name: str) -> str:
    return name.lower().removesuffix(".")
