"""What is looked up, and what was found. Plain values: safe from any thread."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Generic, TypeVar

from lbctl.config.host_names import NameKind

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Record = TypeVar("Record")

PORT_MAX = 65535


class LookupFailed(Exception):
    """Nothing is known of a name now. Its text says why, in the same words for the same cause."""


@dataclass(frozen=True, slots=True)
class NameOf:
    """What an upstream of the configuration names.

    Args:
        kind: `dns` for the addresses of a host, `srv` for a service.
        name: as `parse_name` gives it.
        port: of a host, 1 to 65535; None for a service, whose records have it.

    Raises:
        ValueError: the port does not fit the kind.
    """

    kind: NameKind
    name: str
    port: int | None

    def __post_init__(self) -> None:
        if self.kind == "srv" and self.port is not None:
            raise ValueError("the port of a service comes from its SRV records")
        if self.kind == "dns" and not (self.port is not None and 1 <= self.port <= PORT_MAX):
            raise ValueError("a host needs a port from 1 to 65535")


@dataclass(frozen=True, slots=True)
class Found:
    """One address of an answer.

    Attributes:
        address: `10.0.0.1:9091` or `[2001:db8::1]:9091`, as `lbctl.config.values.parse_address` spells it.
        weight: of an SRV record, 1 to 65535 (0, "hardly ever" in RFC 2782, is 1); None for a host.
    """

    address: str
    weight: int | None


@dataclass(frozen=True, slots=True)
class Service:
    """One SRV record (RFC 2782).

    Attributes:
        priority: the lowest is used first.
        weight: the share among those of the same priority.
        port: 0 to 65535.
        target: the absolute name of a host, as DNS writes names; "." says that there is no such service.
    """

    priority: int
    weight: int
    port: int
    target: str


@dataclass(frozen=True, slots=True)
class Reply(Generic[Record]):
    """What DNS says to one question; that it says nothing is `LookupFailed`.

    Attributes:
        records: none when the name has none of this type.
        ttl: seconds, the smallest on the way through aliases.
        exists: False after NXDOMAIN.
    """

    records: tuple[Record, ...]
    ttl: float
    exists: bool = True
