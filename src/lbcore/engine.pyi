"""Types of the compiled module ``lbcore.engine``."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lbcore.application import Application
from lbcore.limits import LimitClass
from lbcore.peer import PeerCertificate, PolicyClient, Verdict
from lbcore.records import Record
from lbcore.settings import ServerTLS

Authorizer = Callable[[PeerCertificate, str], Verdict | Awaitable[Verdict]]

def tls_engines() -> dict[str, str]: ...

class Listener:
    @property
    def application(self) -> Application: ...
    @property
    def address(self) -> str: ...
    @property
    def port(self) -> int: ...
    def close(self) -> None: ...

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
        on_records: Callable[[Sequence[Record]], None] | None = None,
    ) -> None: ...
    @property
    def workers(self) -> int: ...
    @property
    def max_connections(self) -> int: ...
    @property
    def running(self) -> bool: ...
    @property
    def tls_engine(self) -> str: ...
    def start(self) -> None: ...
    def listen(
        self,
        application: Application,
        address: str,
        *,
        tls: ServerTLS | None = None,
        plaintext: bool = False,
        authorize: Authorizer | None = None,
        source_limits: LimitClass | None = None,
    ) -> Listener: ...
    def set_policy(self, clients: Sequence[PolicyClient] | None) -> int: ...
    def connections(self) -> list[dict[str, Any]]: ...
    def stats(self) -> dict[str, Any]: ...
    def stop(self, drain: float = 0.0) -> bool: ...
    def abort_drain(self) -> None: ...
