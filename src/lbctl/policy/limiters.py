"""The limiters of a configuration: of each client in each app, of each app, of the node."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Literal, NamedTuple

import lbcore
from lbcore import RateLimitManager
from lbctl.config.model import Config, LimitClass

VISITORS_MAX = 65536  # limiters of clients the configuration does not list
LOOKED_AT = 16  # of the oldest, when there are more

Scope = Literal["client", "application", "global"]


class Key(NamedTuple):
    """Whose limiter it is: a client's in an app, an app's, or the node's (both None)."""

    app: str | None = None
    client: str | None = None


class Limiter(NamedTuple):
    """What counts, and by which limits."""

    manager: RateLimitManager
    limits: lbcore.LimitClass


#: Called with a limiter that was just made, before anybody counts with it.
Made = Callable[[Key, RateLimitManager], None]


class Limiters:
    """Makes each limiter once and keeps it, so that whoever shares a scope counts together.

    Those of apps and of the node are made at once, a client's when it first connects. The configuration
    bounds their number. Visitors, which it does not list, have theirs apart and beyond `VISITORS_MAX` lose
    those that were asked for least lately and count nobody.

    Args:
        config: what is limited, and how.
        made: told of every limiter.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(self, config: Config, made: Made | None = None) -> None:
        self._config = config
        self._made = made
        self._limiters: dict[Key, Limiter] = {}
        self._visitors = Visitors()
        self._lock = threading.Lock()
        self._node = None
        if config.node.limits is not None:
            self._node = self._make(Key(), "node", self._class(config.node.limits), "global", None)
        for name, app in config.apps.items():
            if app.app_limits is not None:
                self._make(Key(name), name, self._class(app.app_limits), "application", self._node)

    def client(self, client: str, app: str, name: str | None) -> RateLimitManager | None:
        """The limiter of a client in an app, always the same one.

        Args:
            client: the client's name.
            app: the app's name.
            name: the class of limits that holds for it, or None.

        Returns:
            RateLimitManager | None: None without limits. Where connections wait for a limit they share
            with other clients, each client has one all the same: those who wait take turns by it.
        """
        key = Key(app, client)
        if name is None and not self._wait_together(app):
            return None
        with self._lock:
            if key not in self._limiters:
                return self._make(key, f"{client}/{app}", self._class(name), "client", None)
            return self._limiters[key].manager

    def visitor(self, client: str, app: str, name: str | None) -> RateLimitManager | None:
        """The same for a client that the configuration does not list; a class of its own each, so that
        a visitor whose class changes, or who has a namesake, never shares a limiter of other limits.

        Args:
            client, app, name: as for `client`.
        """
        if name is None and not self._wait_together(app):
            return None
        with self._lock:
            return self._visitors.limiter((client, app, name), self._class(name))

    def application(self, app: str) -> RateLimitManager | None:
        """What holds for all clients of an app together: the app's, with the node's around it, or the
        node's alone; None without either."""
        own = self._limiters.get(Key(app))
        return own.manager if own is not None else self._node

    def source_class(self, app: str, name: str | None) -> lbcore.LimitClass | None:
        """What holds for each source of a plaintext app.

        Args:
            app: the app's name.
            name: the class of limits that holds for it, or None.
        """
        return self._class(name) if name is not None or self._wait_together(app) else None

    def all(self) -> dict[Key, Limiter]:
        """All there are now, but for those of visitors."""
        with self._lock:
            return dict(self._limiters)

    # ---- details

    def _wait_together(self, app: str) -> bool:
        names = (self._config.apps[app].app_limits, self._config.node.limits)
        return any(name is not None and self._config.limits[name].mode == "delay" for name in names)

    def _class(self, name: str | None) -> lbcore.LimitClass:
        return _core_class(self._config.limits[name] if name is not None else LimitClass())

    def _make(
        self, key: Key, name: str, limits: lbcore.LimitClass, scope: Scope, parent: RateLimitManager | None
    ) -> RateLimitManager:
        manager = limits.manager(name, scope=scope, parent=parent)
        if self._made is not None:
            self._made(key, manager)
        self._limiters[key] = Limiter(manager, limits)
        return manager


class Visitors:
    """The limiters of clients that are known elsewhere. The caller holds a lock.

    Args:
        most: limiters kept; more only while that many count open connections.
    """

    def __init__(self, most: int = VISITORS_MAX) -> None:
        self._most = most
        self._limiters: OrderedDict[tuple[str, str, str | None], RateLimitManager] = OrderedDict()

    def __len__(self) -> int:
        return len(self._limiters)

    def limiter(self, key: tuple[str, str, str | None], limits: lbcore.LimitClass) -> RateLimitManager:
        """The limiter of a client, an app and a class."""
        found = self._limiters.get(key)
        if found is not None:
            self._limiters.move_to_end(key)
            return found
        made = limits.manager(f"{key[0]}/{key[1]}", scope="client")
        self._limiters[key] = made
        self._make_room()
        return made

    def _make_room(self) -> None:
        if len(self._limiters) <= self._most:
            return
        for key, manager in list(islice(self._limiters.items(), LOOKED_AT)):
            if manager.open or manager.waiting:
                self._limiters.move_to_end(key)  # in use; the next look is at others
            elif len(self._limiters) > self._most:
                del self._limiters[key]


def _core_class(limits: LimitClass) -> lbcore.LimitClass:
    return lbcore.LimitClass(
        max_open=limits.concurrent,
        rate=limits.rate,
        burst=limits.burst,
        window=limits.window,
        bandwidth_in=limits.bandwidth_in,
        bandwidth_out=limits.bandwidth_out,
        max_lifetime=limits.max_lifetime,
        on_exceed=limits.mode,
        max_wait=limits.max_wait,
        replace_oldest=limits.replace_oldest,
    )
