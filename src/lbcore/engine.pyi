"""Types of the compiled module ``lbcore.engine``."""

from collections.abc import Callable, Iterable, Sequence

from typing_extensions import disjoint_base

from lbcore.application import Application
from lbcore.authorizers import Authorizer
from lbcore.limit_values import LimitClass
from lbcore.peer import PolicyClient
from lbcore.records import Record, RecordLines, RecordSelection
from lbcore.settings import ServerTLS
from lbcore.stats import EngineStats, OpenConnection, State

@disjoint_base
class Listener:
    @property
    def application(self) -> Application: ...
    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    def close(self) -> None: ...

@disjoint_base
class Engine:
    def __init__(
        self,
        *,
        workers: int | None = None,
        max_connections: int | None = None,
        max_unauthenticated: int = 4096,
        handshake_timeout: float = 5.0,
        authorize_timeout: float = 2.0,
        authorize_threads: int = 4,
        tls_engine: str = "auto",
        on_records: Callable[[Sequence[Record]], object] | None = None,
        record_lines: RecordLines | None = None,
        record_selection: RecordSelection | None = None,
    ) -> None: ...
    @property
    def workers(self) -> int: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def max_unauthenticated(self) -> int: ...
    @property
    def tls_engine(self) -> str: ...
    @property
    def state(self) -> State: ...
    @property
    def running(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self, drain: float = 0.0) -> bool: ...
    def abort_drain(self) -> None: ...
    def listen(
        self,
        application: Application,
        address: str,
        *,
        tls: ServerTLS | None = None,
        plaintext: bool = False,
        authorize: Authorizer | None = None,
        source_limits: LimitClass | None = None,
        proxy_protocol_from: Sequence[str] = (),
    ) -> Listener: ...
    def set_policy(self, clients: Iterable[PolicyClient] | None) -> int: ...
    def connections(self) -> list[OpenConnection]: ...
    def stats(self, *, applications: bool = True) -> EngineStats: ...
