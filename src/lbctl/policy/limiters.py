"""The limiters of a configuration: of each client in each app, of each app, of the node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, NamedTuple

import lbcore
from lbcore import RateLimitManager
from lbctl.config.model import Config, LimitClass

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
    bounds their number.

    Args:
        config: what is limited, and how.
        made: told of every limiter.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(self, config: Config, made: Made | None = None) -> None:
        self._config = config
        self._made = made
        self._limiters: dict[Key, Limiter] = {}
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
        """All there are now."""
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
