"""Types of the compiled module ``lbcore.application``."""

from collections.abc import Callable, Iterable
from socket import socket
from typing import Literal

from typing_extensions import disjoint_base

from lbcore.authorizers import Authorizer
from lbcore.engine import Engine
from lbcore.limits import RateLimitManager
from lbcore.records import Record
from lbcore.settings import ServerTLS
from lbcore.stats import ApplicationStats

@disjoint_base
class UpstreamServer:
    def __init__(self, address: str, weight: int = 1, *, max_connections: int | None = None) -> None: ...
    @property
    def address(self) -> str: ...
    @property
    def weight(self) -> int: ...
    @property
    def max_connections(self) -> int | None: ...
    @property
    def id(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def picked(self) -> int: ...
    @property
    def errors(self) -> int: ...
    @property
    def ejected(self) -> bool: ...

@disjoint_base
class Application:
    def __init__(
        self,
        name: str,
        upstreams: Iterable[UpstreamServer],
        *,
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
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def upstreams(self) -> tuple[UpstreamServer, ...]: ...
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
    def stats(self) -> ApplicationStats: ...
