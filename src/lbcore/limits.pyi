"""Types of the compiled module ``lbcore.limits``."""

from typing_extensions import disjoint_base

class LimitClass:
    """A named set of limits to build managers from; immutable."""

    def __init__(
        self, *, max_open: int | None = None, rate: float | None = None, burst: int | None = None
    ) -> None: ...
    @property
    def max_open(self) -> int | None: ...
    @property
    def rate(self) -> float | None: ...
    @property
    def burst(self) -> int | None: ...

class Admission:
    """The answer to ``connection_opened``: true when admitted."""

    allowed: bool
    scope: str | None
    limit: str | None
    wait: float
    def __init__(
        self, allowed: bool, scope: str | None = None, limit: str | None = None, wait: float = 0.0
    ) -> None: ...
    def __bool__(self) -> bool: ...

@disjoint_base
class RateLimitManager:
    def __init__(
        self,
        name: str,
        *,
        max_open: int | None = None,
        rate: float | None = None,
        burst: int | None = None,
    ) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def open(self) -> int: ...
    @property
    def admitted(self) -> int: ...
    @property
    def refused(self) -> int: ...
    def connection_opened(self) -> Admission: ...
    def connection_closed(self) -> None: ...
