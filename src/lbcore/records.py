"""The one record a connection leaves behind, and what its certificate said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SCHEMA = 1  # `v` of every line
NODE_MAX = 255  # characters of a node's name
REFUSALS_MAX = 2**31 - 1
SUM_WINDOW = 1  # seconds
KINDS_MAX = 4096  # of refusals that are counted apart in a window


class Record(NamedTuple):
    """One finished connection (``conn.close``) or one refusal (``conn.deny``).

    Built on the engine's record thread, in the order the workers wrote them.

    Attributes:
        event: ``"conn.close"`` (it was forwarded) or ``"conn.deny"`` (it was refused).
        id: unique across nodes and restarts.
        time: end of the connection, seconds since the epoch.
        app: the application's name.
        source: the client's ``host:port``.
        stage: where it ended, one of the nine stages.
        reason: one reason code.
        client: the client record's name, or None where nobody was identified.
        serial: the certificate's serial number, or None without a certificate.
        certificate: the leaf's DER for a refusal that got as far as a certificate, else None.
        claimed: the certificate was shown but possession of its key was not proven.
        scope: which limit scope refused (``client``, ``application``, ``global``), or None.
        waited_ms: milliseconds that a limit held it back, or None.
        would_deny: the reason that a limit in shadow mode would have refused it with, or None.
        tls: ``"TLSv1.3"`` or None.
        cipher: the cipher suite's name or None.
        tls_error: the TLS library's name of the error, or None.
        upstream: the picked upstream's address, or None.
        attempts: upstreams dialled.
        handshake_ms, connect_ms, duration_ms: milliseconds, or None where the stage was not reached.
        bytes_in: from the client to the upstream; after a reset of the client, the last of them may not
            have been delivered.
        bytes_out: from the upstream to the client.
        errno: the system error behind the reason, or 0.
    """

    event: str
    id: str
    time: float
    app: str
    source: str
    stage: str
    reason: str
    client: str | None
    serial: int | None
    certificate: bytes | None
    claimed: bool
    scope: str | None
    waited_ms: float | None
    would_deny: str | None
    tls: str | None
    cipher: str | None
    tls_error: str | None
    upstream: str | None
    attempts: int
    handshake_ms: float | None
    connect_ms: float | None
    duration_ms: float
    bytes_in: int
    bytes_out: int
    errno: int


@dataclass(frozen=True)
class RefusalSum:
    """Refusals of one kind, within one second, of which there was no record.

    Attributes:
        app, client, reason: as in `Record`; a client that was merely claimed is none.
        count: how many there were beyond those with a record.
    """

    app: str
    client: str | None
    reason: str
    count: int


@dataclass(frozen=True)
class RecordSelection:
    """Of which connections there is a record, or a line. Whoever is left out here costs next to nothing, so a
    storm of refusals fills neither a disk nor a CPU.

    Attributes:
        sample: share of the connections that were forwarded, 0 to 1.
        refusals: records a second of refusals of one kind: of one application, client and reason. Strangers
            are one client, wherever they come from. None: all.
        on_sums: called with a list of RefusalSum when a second is over that had more than that, on the
            engine's record thread, after the records of that second.

    Raises:
        TypeError, ValueError: naming the attribute.
    """

    sample: float = 1.0
    refusals: int | None = None
    on_sums: Callable[[Sequence[RefusalSum]], object] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.sample, bool) or not isinstance(self.sample, (int, float)):
            raise TypeError(f"sample: a number, not {self.sample!r}")
        if not 0 <= self.sample <= 1:
            raise ValueError(f"sample: 0 to 1, not {self.sample!r}")
        if self.refusals is not None:
            if isinstance(self.refusals, bool) or not isinstance(self.refusals, int):
                raise TypeError(f"refusals: a whole number or None, not {self.refusals!r}")
            if not 0 <= self.refusals <= REFUSALS_MAX:
                raise ValueError(f"refusals: 0 to {REFUSALS_MAX}, not {self.refusals!r}")
        if self.on_sums is not None and not callable(self.on_sums):
            raise TypeError(f"on_sums: a callable or None, not {self.on_sums!r}")


@dataclass(frozen=True)
class RecordLines:
    """Where records go as JSON, one line each, instead of as a `Record`. The usual finished connection
    (``{"v":1,"ts":…,"event":"conn.close",…}``) is written by the core itself, for a small part of what a
    Record and its text cost. Of refusals, and of what a limit or a system error had a part in, there is more
    to say: `line` does that.

    Attributes:
        write: called with whole lines, as bytes, on the engine's record thread; in the order of the records.
        node: who writes, in each line; at most 255 characters.
        line: called with each Record that the core writes no line of; answers its line, without its end.
            None: that one is left out.

    Raises:
        TypeError, ValueError: naming the attribute.
    """

    write: Callable[[bytes], object]
    node: str
    line: Callable[[Record], str | None]

    def __post_init__(self) -> None:
        if not callable(self.write):
            raise TypeError(f"write: a callable, not {self.write!r}")
        if not isinstance(self.node, str):
            raise TypeError(f"node: a name, not {self.node!r}")
        if len(self.node) > NODE_MAX:
            raise ValueError(f"node: at most {NODE_MAX} characters, not {len(self.node)}")
        if not callable(self.line):
            raise TypeError(f"line: a callable, not {self.line!r}")
