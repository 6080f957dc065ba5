"""A balancer under test: engine, application, listener, policy and the records it leaves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import lbcore
from kit.leaks import SETTLE, held
from kit.sockets import End
from kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from kit.pki import Identity, Pki


class HasAddress(Protocol):
    """An upstream of the kit."""

    address: str


#: Which engine the tests run on.
TLS_ENGINE = os.environ.get("LBCORE_TEST_ENGINE", "s2n")
#: How a client sees a permanent refusal that the engine decides while it shakes hands.
REFUSED = End.ALERT if TLS_ENGINE == "openssl" else End.RESET

Target = HasAddress | lbcore.UpstreamServer | str


@dataclass
class Policy:
    """An authorizer as simple as can be: a dictionary by serial.

    Attributes:
        clients: serial -> (name, applications, limits).
        asked: what it was asked, in order.
        ttl: of the verdicts.
    """

    clients: dict[int, tuple[str, Collection[str], lbcore.RateLimitManager | None]] = field(
        default_factory=dict
    )
    asked: list[tuple[int, str]] = field(default_factory=list)
    ttl: float | None = None

    def allow(self, identity: Identity, *apps: str) -> None:
        """Lets a client use applications."""
        self.clients[identity.serial] = (identity.name, apps, None)

    def limit(
        self, identity: Identity, *apps: str, limits: lbcore.RateLimitManager
    ) -> lbcore.RateLimitManager:
        """Lets a client use applications within limits."""
        self.clients[identity.serial] = (identity.name, apps, limits)
        return limits

    def limiters(self) -> list[lbcore.RateLimitManager]:
        """Every limiter it hands out."""
        return [limits for _, _, limits in self.clients.values() if limits is not None]

    def __call__(self, peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
        self.asked.append((peer.serial, application))
        entry = self.clients.get(peer.serial)
        if entry is None:
            return lbcore.Verdict(False, reason="unknown_serial", ttl=self.ttl)
        name, apps, limits = entry
        if application not in apps:
            return lbcore.Verdict(False, client=name, reason="app_not_allowed", ttl=self.ttl)
        return lbcore.Verdict(True, client=name, limits=limits, ttl=self.ttl)


class Thinker:
    """An authorizer that lets `alice` in, but only after it was told to.

    Attributes:
        thinking: it has been asked.
        answered: set this to have the answer.
    """

    def __init__(self, patience: float) -> None:
        self.thinking = threading.Event()
        self.answered = threading.Event()
        self._patience = patience

    def __call__(self, peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
        self.thinking.set()
        self.answered.wait(self._patience)
        return lbcore.Verdict(True, client="alice")


class Records:
    """What the engine wrote down; any thread."""

    def __init__(self) -> None:
        self._records: list[lbcore.Record] = []
        self._lock = threading.Lock()

    def take(self, batch: Iterable[lbcore.Record]) -> None:
        """The engine's `on_records`."""
        with self._lock:
            self._records.extend(batch)

    def all(self, **fields: object) -> list[lbcore.Record]:
        """Those with the given values, in order."""
        with self._lock:
            return [
                record
                for record in self._records
                if all(getattr(record, name) == value for name, value in fields.items())
            ]

    def wait(self, count: int = 1, *, timeout: float = PATIENCE, **fields: Any) -> list[lbcore.Record]:
        """At least `count` of them, when they are there."""

        def enough() -> bool:
            return len(self.all(**fields)) >= count

        try:
            wait_until(enough, timeout=timeout)
        except AssertionError:
            raise AssertionError(
                f"fewer than {count} records with {fields} within {timeout:g} s; there are: {self.all()}"
            ) from None
        return self.all(**fields)


class Balancer:
    """An engine with one application and one listener; more can be added.

    Args:
        pki: certificates; with it, `alice` may use ``web`` unless `authorize` says otherwise.
        upstreams: of the application.
        name: of the application.
        authorize: default: a fresh `Policy`.
        plaintext: listen without TLS.
        source_limits: of a plaintext listener.
        alpn: of the listener.
        proxy_protocol_from: of the listener.
        app: options of the Application.
        engine: options of the Engine.
        policy: PolicyClient objects for the native table, or None.
    """

    def __init__(
        self,
        pki: Pki,
        *upstreams: Target,
        name: str = "web",
        authorize: Any = None,
        plaintext: bool = False,
        source_limits: lbcore.LimitClass | None = None,
        alpn: Sequence[str] = (),
        proxy_protocol_from: Sequence[str] = (),
        app: Mapping[str, Any] | None = None,
        engine: Mapping[str, Any] | None = None,
        policy: Sequence[lbcore.PolicyClient] | None = None,
    ) -> None:
        self.pki = pki
        self.records = Records()
        self.policy = Policy()
        self.policy.allow(pki.alice, name)
        self.applications: list[lbcore.Application] = []
        self.limiters: list[lbcore.RateLimitManager] = []
        self._authorize = authorize if authorize is not None else self.policy
        options = {"workers": 2, "on_records": self.records.take, "tls_engine": TLS_ENGINE, **(engine or {})}
        self.engine = lbcore.Engine(**options)
        if policy is not None:
            self.engine.set_policy(policy)
        self.engine.start()
        try:
            self.listener = self.add(
                name, *upstreams, plaintext=plaintext, source_limits=source_limits, alpn=alpn,
                proxy_protocol_from=proxy_protocol_from, **(app or {}),
            )  # fmt: skip
        except BaseException:
            self.engine.stop()
            raise

    def add(
        self,
        name: str,
        *upstreams: Target,
        plaintext: bool = False,
        source_limits: lbcore.LimitClass | None = None,
        alpn: Sequence[str] = (),
        proxy_protocol_from: Sequence[str] = (),
        address: str = "127.0.0.1:0",
        **app: Any,
    ) -> lbcore.Listener:
        """One more application with a listener of its own."""
        servers = [
            upstream
            if isinstance(upstream, lbcore.UpstreamServer)
            else lbcore.UpstreamServer(upstream if isinstance(upstream, str) else upstream.address)
            for upstream in upstreams
        ]
        application = lbcore.Application(name, servers, **app)
        self.applications.append(application)
        if plaintext:
            return self.engine.listen(
                application, address, plaintext=True, source_limits=source_limits,
                proxy_protocol_from=proxy_protocol_from,
            )  # fmt: skip
        tls = self.pki.server_tls(alpn=alpn)
        return self.engine.listen(
            application, address, tls=tls, authorize=self._authorize, proxy_protocol_from=proxy_protocol_from
        )

    @property
    def app(self) -> lbcore.Application:
        """The first application."""
        return self.applications[0]

    @property
    def port(self) -> int:
        """Of the first listener."""
        return self.listener.port

    def record(self, *, timeout: float = PATIENCE, **fields: Any) -> lbcore.Record:
        """The one record with these values; fails when there are more."""
        found = self.records.wait(timeout=timeout, **fields)
        assert len(found) == 1, f"more than one record with {fields}: {found}"
        return found[0]

    def stages(self) -> list[str]:
        """The stage of every open connection."""
        return [connection["stage"] for connection in self.engine.connections()]

    def wait_open(self, count: int, stage: str = "forward") -> None:
        """Until that many connections are in `stage`."""
        wait_until(lambda: self.stages().count(stage) == count, f"{count} connections in {stage}")

    def held(self) -> dict[str, int]:
        """Counts that are not zero."""
        return held(self.engine, self.applications, [*self.policy.limiters(), *self.limiters])

    def wait_quiet(self, timeout: float = SETTLE) -> None:
        """Until nothing is counted any more, without stopping the engine."""
        try:
            wait_until(lambda: not self.held(), timeout=timeout)
        except AssertionError:
            raise AssertionError(f"still counted after {timeout:g} s: {self.held()}") from None

    def close(self) -> None:
        """Stops the engine."""
        self.engine.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
