"""Types of the compiled module ``lbcore.application``."""

from collections.abc import Callable, Iterable
from socket import socket
from typing import Literal

from typing_extensions import disjoint_base

from lbcore.authorizers import Authorizer
from lbcore.engine import Engine
from lbcore.limits import RateLimitManager
from lbcore.records import Record
from lbcore.settings import ServerTLS, UpstreamTLS
from lbcore.stats import ApplicationStats, UpstreamState

@disjoint_base
class UpstreamServer:
    def __init__(
        self,
        address: str,
        weight: int = 1,
        *,
        max_connections: int | None = None,
        tls: UpstreamTLS | None = None,
    ) -> None: ...
    @property
    def address(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @weight.setter
    def weight(self, weight: int) -> None: ...
    @property
    def max_connections(self) -> int | None: ...
    @property
    def tls(self) -> UpstreamTLS | None: ...
    @property
    def id(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def picked(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def quarantines(self) -> int: ...
    @property
    def ejected(self) -> bool: ...
    @property
    def state(self) -> UpstreamState: ...
    def drain(self, end_after: float | None = None) -> None: ...
    def resume(self) -> None: ...
    def mark_down(self, end_after: float | None = None) -> None: ...
    def mark_up(self) -> None: ...

@disjoint_base
class Application:
    def __init__(
        self,
        name: str,
        upstreams: Iterable[UpstreamServer] = (),
        *,
        dynamic: bool = False,
        max_connections: int | None = None,
        limits: RateLimitManager | None = None,
        engine: Engine | None = None,
        connect_timeout: float = 1.0,
        connect_attempts: int = 3,
        idle_timeout: float = 1800.0,
        half_close_timeout: float = 60.0,
        tcp_keepalive: float = 60.0,
        on_truncated: Literal["reset", "eof"] = "reset",
        passive_failures: int = 5,
        passive_eject: float = 10.0,
        max_ejected: float = 0.5,
        slow_start: float | None = None,
        affinity: Literal["client"] | None = None,
        proxy_protocol: Literal["v1", "v2", "v2+tls"] | None = None,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def upstreams(self) -> tuple[UpstreamServer, ...]: ...
    def add_upstream(self, server: UpstreamServer) -> None: ...
    def remove_upstream(self, server: UpstreamServer, end_after: float | None = None) -> None: ...
    @property
    def max_connections(self) -> int | None: ...
    @property
    def limits(self) -> RateLimitManager | None: ...
    @property
    def engine(self) -> Engine | None: ...
    @property
    def id(self) -> int: ...
    def submit_connection(
        self,
        sock: socket | int,
        limits: RateLimitManager | None = None,
        *,
        tls: ServerTLS | None = None,
        authorize: Authorizer | None = None,
        client: str | None = None,
        on_done: Callable[[Record], object] | None = None,
    ) -> str: ...
    async def serve_connection(
        self,
        sock: socket | int,
        limits: RateLimitManager | None = None,
        *,
        tls: ServerTLS | None = None,
        authorize: Authorizer | None = None,
        client: str | None = None,
    ) -> Record: ...
    @property
    def open_connections(self) -> int: ...
    @property
    def health_turns(self) -> int: ...
    def stats(self) -> ApplicationStats: ...
