"""The one record a connection leaves behind, and what its certificate said."""

from __future__ import annotations

from typing import NamedTuple


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
