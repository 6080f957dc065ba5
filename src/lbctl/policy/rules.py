"""From a configuration to answers: which client is this, may it, and under which limits.

Pure: reads a `Config`, touches nothing else. Default deny: what is not written down is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from lbcore import PeerCertificate, PolicyClient
from lbctl.config.model import Config, LimitClass
from lbctl.config.references import DEFAULT_CLASS
from lbctl.policy.certificate_claims import CertificateClaims
from lbctl.policy.store import Answer, ClientRecord


@dataclass(frozen=True)
class Decision:
    """What the rules say about one certificate and one app.

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
        self._claims = CertificateClaims(config) if config.certificate_claims else None
        self._records: dict[int, ClientRecord] = {}  # a serial has one client; the configuration's rules
        for name, client in config.clients.items():
            record = ClientRecord(name, frozenset(client.apps), client.limits, client.disabled)
            self._records.update(dict.fromkeys(client.serials, record))

    @property
    def elsewhere(self) -> bool:
        """Whether clients may be known that the configuration does not list."""
        return self._config.client_store is not None or self._config.certificate_claims

    @property
    def claims(self) -> CertificateClaims | None:
        """What reads the claims of certificates, where they count."""
        return self._claims

    def record(self, serial: int) -> ClientRecord | None:
        """The client the configuration lists this serial for."""
        return self._records.get(serial)

    def lists(self, client: str) -> bool:
        """Whether the configuration has a client of that name."""
        return client in self._config.clients

    def judge(self, serial: int, app: str) -> Decision:
        """May the owner of this serial use this app, by the configuration alone?"""
        return self.decide(self.record(serial), app)

    def decide(self, record: ClientRecord | None, app: str) -> Decision:
        """May this client use this app?

        A client that the configuration disables stays out under its name, whoever else knows it.
        """
        if record is None:
            return Decision(None, "unknown_serial")
        listed = self._config.clients.get(record.name)
        if record.disabled or (listed is not None and listed.disabled):
            return Decision(record.name, "client_disabled")
        if app not in record.apps:
            return Decision(record.name, "app_not_allowed")
        return Decision(record.name, None)

    def class_for(self, record: ClientRecord, app: str) -> str | None:
        """The class of limits that holds for this client in an app, or None without limits.

        The client's own class for that app comes before the app's, which comes before `default`.
        """
        return record.limits[app] if app in record.limits else self._class_of_app(app)

    def class_name(self, client: str | None, app: str) -> str | None:
        """The same for a client the configuration lists, by its name; None is any client."""
        record = self._config.clients.get(client) if client is not None else None
        return record.limits[app] if record is not None and app in record.limits else self._class_of_app(app)

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

    def _class_of_app(self, app: str) -> str | None:
        if app in self._config.apps and self._config.apps[app].limits is not None:
            return self._config.apps[app].limits
        return DEFAULT_CLASS if DEFAULT_CLASS in self._config.limits else None


class ConfigStore:
    """The clients the configuration lists, as a `ClientStore`. It never blocks and never fails.

    Thread-safety: may be called from any thread.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def find(self, peer: PeerCertificate) -> Answer:
        """As `ClientStore.find`; it holds until the configuration changes."""
        return Answer(self._rules.record(peer.serial))


def policy_clients(config: Config) -> list[PolicyClient]:
    """`Rules(config).policy_clients()`."""
    return Rules(config).policy_clients()
