"""The shapes of what ``Engine.stats``, ``Engine.connections`` and ``Application.stats`` return.

Plain dicts at run time; these types are for whoever reads them with a type checker.
"""

from __future__ import annotations

from typing import Literal, TypedDict

State = Literal["new", "running", "stopping", "stopped", "forked"]


UpstreamState = Literal["up", "draining", "down", "quarantined"]


class UpstreamStats(TypedDict):
    """One upstream: its load and state now, and picks and failures so far."""

    address: str
    weight: int
    in_flight: int
    picked: int
    errors: int
    ejected: bool
    state: UpstreamState


class ApplicationStats(TypedDict):
    """One application: totals, and how its connections ended, by reason."""

    open: int
    accepted: int
    forwarded: int
    bytes_in: int
    bytes_out: int
    ended: dict[str, int]
    upstreams: list[UpstreamStats]


class WorkerStats(TypedDict):
    """One worker; ``stamp_age_s``: seconds since it last went round its loop."""

    open: int
    accepted: int
    handed_over: int
    wakeups: int
    stamp_age_s: float


class EngineStats(TypedDict):
    """All counters of an engine; ``open``: connections of clients that were let in, and plaintext ones;
    ``unauthenticated``: the other sockets; ``log_dropped``: records that found their ring full."""

    state: State
    tls_engine: str
    open: int
    unauthenticated: int
    max_connections: int
    max_unauthenticated: int
    accept_errors: int
    log_dropped: int
    epoch: int
    workers: list[WorkerStats]
    applications: dict[str, ApplicationStats]


class OpenConnection(TypedDict):
    """One open connection; ``upstream_local`` is our end of the connection to the upstream."""

    id: str
    app: str
    stage: str
    client: str | None
    serial: int | None
    source: str
    upstream: str | None
    upstream_local: str | None
    age_s: float
    bytes_in: int
    bytes_out: int
