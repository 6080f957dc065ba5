"""Types of the compiled module ``lbcore.limits``."""

class LimitClass:
    """A named set of limits to build managers from; immutable."""

    max_open: int | None
    rate: float | None
    burst: int | None
    def __init__(
        self, *, max_open: int | None = None, rate: float | None = None, burst: int | None = None
    ) -> None: ...

class Admission:
    """The answer to ``connection_opened``: true when admitted."""

    allowed: bool
    scope: str | None
    limit: str | None
    wait: float
    def __bool__(self) -> bool: ...

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
