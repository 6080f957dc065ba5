"""Where clients are known: one interface for the configuration, an HTTPS endpoint and certificates.

Chain([ConfigStore(rules), HttpStore(...), CertificateClaims(...)]).find(peer).record
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Literal, Protocol

from lbcore import PeerCertificate

#: Where a record comes from.
Source = Literal["configuration", "store", "certificate"]


class StoreUnavailable(Exception):
    """A store cannot say whether it knows a client, and has told the operator so."""


@dataclass(frozen=True)
class ClientRecord:
    """What is known of one client.

    Attributes:
        name: for logs and limits; a name as the configuration allows it.
        apps: what it may use; only apps of this configuration.
        limits: app to class of limits, where it is not the app's; only classes of this configuration.
        disabled: known, but refused.
        source: who says so.
    """

    name: str
    apps: AbstractSet[str]
    limits: Mapping[str, str] = field(default_factory=dict)
    disabled: bool = False
    source: Source = "configuration"


@dataclass(frozen=True)
class Answer:
    """What a store says about one certificate.

    Attributes:
        record: of the client it belongs to; None: it is unknown here.
        ttl: seconds the answer holds; None until the configuration changes.
    """

    record: ClientRecord | None
    ttl: float | None = None


class ClientStore(Protocol):
    """Knows clients by their certificates.

    Thread-safety: called from many threads at once. It may block, for a bounded time: authorizers run
    beside the data path, and clients that the configuration lists are never looked up anywhere else.
    """

    def find(self, peer: PeerCertificate) -> Answer:
        """Whose certificate this is.

        Raises:
            StoreUnavailable: it cannot tell now; the client is to be refused, not taken for unknown.
        """


class Chain:
    """Several stores in the order of their authority: the first that knows the client decides.

    One that cannot tell ends the search: what comes after it must not decide in its place.

    Args:
        stores: the highest authority first.

    Thread-safety: that of the stores.
    """

    def __init__(self, stores: Sequence[ClientStore]) -> None:
        self._stores = tuple(stores)

    def find(self, peer: PeerCertificate) -> Answer:
        """As `ClientStore.find`; it holds no longer than the answers of those that were asked."""
        record, ttls = None, []
        for store in self._stores:
            answer = store.find(peer)
            record = answer.record
            if answer.ttl is not None:
                ttls.append(answer.ttl)
            if record is not None:
                break
        return Answer(record, min(ttls, default=None))
