"""The servers of one app while it runs.

Those with an address of their own are there from the start. Those of a name come and go with its answers:
one that is gone gets no new connections, and leaves when its last connection has ended; should the name
have it again before that, it stays as if nothing had happened, so the count of its connections is right at
any time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import lbcore
from lbcore.stats import UpstreamState
from lbctl.config.clashes import is_own
from lbctl.config.model import App
from lbctl.names import Found, NameOf
from lbctl.upstreams.server import server


class Pool:
    """An app's servers.

    Args:
        name: of the app.
        app: its section of the configuration.
        limits: what all its clients together are held to, or None.
        drain_timeout: seconds that connections have under the policy `drain`.

    Attributes:
        name: of the app.
        app: its section of the configuration.
        application: what the engine serves.

    Thread-safety: every method may be called from any thread.

    Raises:
        ValueError: the engine does not take it.
    """

    def __init__(
        self, name: str, app: App, limits: lbcore.RateLimitManager | None, drain_timeout: float
    ) -> None:
        self.name, self.app = name, app
        self._drain_timeout = drain_timeout
        self._lock = threading.Lock()
        self._servers: dict[str, lbcore.UpstreamServer] = {}
        self._wanted: dict[str, dict[int, int]] = {}  # address -> upstream of the configuration -> weight
        self._changes = 0  # of who is wanted
        for index, upstream in enumerate(app.upstreams):
            if upstream.address is not None:
                self._wanted[upstream.address] = {index: upstream.weight}
                self._servers[upstream.address] = server(app, upstream, upstream.address, upstream.weight)
        self.application = _application(name, app, limits, list(self._servers.values()))

    # ---- who they are

    def names(self) -> Iterator[tuple[int, NameOf]]:
        """The names that stand for servers, with their places in `upstreams`."""
        for index, upstream in enumerate(self.app.upstreams):
            if upstream.dns is not None:
                yield index, NameOf("dns", upstream.dns, upstream.port)
            elif upstream.srv is not None:
                yield index, NameOf("srv", upstream.srv, None)

    def wanted(self) -> list[tuple[int, str]]:
        """The servers that get connections when they are up: their places in `upstreams`, their addresses."""
        with self._lock:
            return [(min(indexes), address) for address, indexes in self._wanted.items()]

    def answer(self, index: int, found: Sequence[Found]) -> None:
        """What a name stands for now.

        Raises:
            OSError, RuntimeError, ValueError: the engine does not take a server. The others have been taken.
        """
        upstream = self.app.upstreams[index]
        problem: Exception | None = None
        with self._lock:
            self._changes += 1
            now = {one.address: upstream.weight if one.weight is None else one.weight for one in found}
            for address, weight in now.items():
                try:
                    self._want(index, address, weight)
                except (OSError, RuntimeError, ValueError) as error:
                    problem = error
            for address, indexes in list(self._wanted.items()):
                if index in indexes and address not in now:
                    self._unwant(index, address)
        if problem is not None:
            raise problem

    def _want(self, index: int, address: str, weight: int) -> None:
        if is_own(self.app.listen, address):  # it would forward to itself for ever
            raise ValueError(f"{address} is this app's own listen address")
        there = self._servers.get(address)
        if there is None:
            there = server(self.app, self.app.upstreams[index], address, weight)
            try:
                self.application.add_upstream(there)
            finally:  # it is there when a worker has not said yet that it knows
                if there in self.application.upstreams:
                    self._servers[address] = there
        elif address not in self._wanted:
            there.resume()
        indexes = self._wanted.setdefault(address, {})
        indexes[index] = weight
        there.weight = indexes[min(indexes)]

    def _unwant(self, index: int, address: str) -> None:
        indexes = self._wanted[address]
        del indexes[index]
        if indexes:
            self._servers[address].weight = indexes[min(indexes)]
            return
        del self._wanted[address]
        self._servers[address].drain(self._end_after(self.app.on_remove))

    def sweep(self) -> None:
        """Lets those go that nobody wants and that have no connections any more."""
        with self._lock:
            if len(self._servers) == len(self._wanted):
                return
            for address, there in list(self._servers.items()):
                if address not in self._wanted and there.in_flight == 0:
                    self.application.remove_upstream(there)
                    del self._servers[address]

    # ---- how they are

    def checked(self, address: str, *, up: bool, passed: bool) -> int | None:
        """What a check has found.

        Args:
            address: of the server.
            up: what it is by the check's rules.
            passed: how this one check ended.

        Returns:
            Its open connections before that, which may cut them; None: it has gone meanwhile.
        """
        with self._lock:  # to the end, or it might be swept out of the application meanwhile
            there = self._servers.get(address) if address in self._wanted else None
            if there is None:
                return None
            state, still_open = there.state, there.in_flight
            if not up and state != "down":
                there.mark_down(self._end_after(self.app.on_down))
            elif up and passed and state in ("down", "quarantined"):
                there.mark_up()
            return still_open

    def version(self) -> tuple[int, int]:
        """The same as before: nobody came or went, and no quarantine began or ended."""
        return self._changes, self.application.health_turns

    def has_others_up(self, address: str) -> bool:
        """Whether another one than that may be picked."""
        return any(state == "up" for other, (state, _) in self.states().items() if other != address)

    def states(self) -> dict[str, tuple[UpstreamState, int]]:
        """How each server that is wanted is, and how often failures have put it into quarantine so far."""
        with self._lock:
            return {
                address: (there.state, there.quarantines)
                for address, there in self._servers.items()
                if address in self._wanted
            }

    def _end_after(self, policy: str) -> float | None:
        return {"keep": None, "drain": self._drain_timeout, "cut": 0.0}[policy]


def _application(
    name: str, app: App, limits: lbcore.RateLimitManager | None, servers: list[lbcore.UpstreamServer]
) -> lbcore.Application:
    return lbcore.Application(
        name,
        servers,
        dynamic=any(upstream.address is None for upstream in app.upstreams),
        max_connections=app.max_connections,
        limits=limits,
        connect_timeout=app.connect.timeout,
        connect_attempts=app.connect.attempts,
        idle_timeout=app.idle_timeout,
        half_close_timeout=app.half_close_timeout,
        tcp_keepalive=app.tcp_keepalive,
        on_truncated=app.on_truncated,
        passive_failures=app.health.passive.failures,
        passive_eject=app.health.passive.eject,
        max_ejected=app.health.passive.max_ejected,
        slow_start=app.slow_start,
        affinity=app.affinity,
        proxy_protocol=app.proxy_protocol,
    )
