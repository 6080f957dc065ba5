"""From a configuration to answers: which client is this, may it, and under which limits.

Pure: reads a `Config`, touches nothing else. Default deny: what is not written down is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbcore import PolicyClient
from lbctl.config.model import Config, LimitClass
from lbctl.config.references import DEFAULT_CLASS


@dataclass(frozen=True)
class Decision:
    """What the configuration says about one certificate and one app.

    Attributes:
        client: the client's name, or None when nobody has the serial.
        reason: why it is refused, one of the `authorize` reason codes, or None when it may.
    """

    client: str | None
    reason: str | None

    @property
    def allow(self) -> bool:
        return self.reason is None


class Rules:
    """The questions a configuration answers. Immutable: safe from any thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._names = {
            serial: name for name, client in config.clients.items() for serial in client.serials
        }  # a serial belongs to one client; the configuration's own rules see to that

    def judge(self, serial: int, app: str) -> Decision:
        """May the owner of this serial use this app?"""
        name = self._names.get(serial)
        if name is None:
            return Decision(None, "unknown_serial")
        client = self._config.clients[name]
        if client.disabled:
            return Decision(name, "client_disabled")
        if app not in client.apps:
            return Decision(name, "app_not_allowed")
        return Decision(name, None)

    def class_name(self, client: str | None, app: str) -> str | None:
        """The class of limits that holds for a client in an app, or None without limits.

        The client's own class for that app comes before the app's, which comes before `default`.
        """
        record = self._config.clients.get(client) if client is not None else None
        if record is not None and app in record.limits:
            return record.limits[app]
        if app in self._config.apps and self._config.apps[app].limits is not None:
            return self._config.apps[app].limits
        return DEFAULT_CLASS if DEFAULT_CLASS in self._config.limits else None

    def limits(self, client: str | None, app: str) -> LimitClass | None:
        """The class itself."""
        name = self.class_name(client, app)
        return self._config.limits[name] if name is not None else None

    def class_of_scope(self, scope: str | None, client: str | None, app: str) -> str | None:
        """The class of limits behind a refusal by this scope (`Record.scope`)."""
        if scope == "global":
            return self._config.node.limits
        if scope == "application":
            return self._config.apps[app].app_limits if app in self._config.apps else None
        return self.class_name(client, app)

    def caps(self, app: str) -> list[tuple[str, str, str]]:
        """Paths of the keys that bound an app's open connections, of all clients together."""
        found = self._config.apps.get(app)
        shared = found.app_limits if found is not None else None
        paths = []
        if shared is not None and self._config.limits[shared].concurrent is not None:
            paths.append(("limits", shared, "concurrent"))
        if found is None or found.max_connections is not None or not paths:
            paths.insert(0, ("apps", app, "max_connections"))
        return paths

    def policy_clients(self) -> list[PolicyClient]:
        """The same rules for the engine's native table, which refuses strangers without asking."""
        return [
            PolicyClient(name, client.serials, client.apps, client.disabled)
            for name, client in self._config.clients.items()
        ]


def policy_clients(config: Config) -> list[PolicyClient]:
    """`Rules(config).policy_clients()`."""
    return Rules(config).policy_clients()
