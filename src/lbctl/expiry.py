"""Telling when certificates are near their end: those of the configuration's files, and those of clients."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from lbcore import PeerCertificate
from lbctl.alerts import Alerts, ExpiryWatch
from lbctl.config import Config
from lbctl.config.named import named_certificates

CLIENTS_MAX = 10_000  # certificates that are remembered; the one that was seen least lately goes first


class CertificateEnds:
    """Alerts once for each threshold of `tls.expiry_warning`; of clients it says so in the log, too, which
    has the warnings of `check_files` for the rest.

    Args:
        config: which files there are, and the thresholds.
        say: gets events.
        alerts: gets alerts.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(self, config: Config, say: Callable[..., None], alerts: Alerts) -> None:
        self._config, self._say, self._alerts = config, say, alerts
        self._watch = ExpiryWatch(config.tls.expiry_warning if config.tls is not None else ())
        self._lock = threading.Lock()
        self._clients: OrderedDict[tuple[str, int], datetime] = OrderedDict()

    def look(self) -> None:
        """At the start and once a day: at the files, and at what clients have shown so far."""
        for named in named_certificates(self._config):
            for due in self._watch.seen("file", str(named.path), named.serial, named.not_after):
                self._alerts.alert("certificate_expiry", due.subject, due.message, **due.fields)
        with self._lock:
            clients = list(self._clients.items())
        for (name, serial), ends in clients:
            self._client(name, serial, ends)

    def admitted(self, client: str, peer: PeerCertificate) -> None:
        """A client was let in with that certificate."""
        with self._lock:
            known = self._clients.get((client, peer.serial))
        try:
            ends = known or peer.not_after  # parsed once, not for each verdict
        except ValueError:
            return  # it was verified, and yet its date cannot be read: there is nothing to say
        with self._lock:
            self._clients[client, peer.serial] = ends
            self._clients.move_to_end((client, peer.serial))
            if len(self._clients) > CLIENTS_MAX:
                self._clients.popitem(last=False)
        self._client(client, peer.serial, ends)

    def _client(self, name: str, serial: int, ends: datetime) -> None:
        for due in self._watch.seen("client", name, serial, ends):
            self._say("certificate", message=due.message, **due.fields)
            self._alerts.alert("certificate_expiry", due.subject, due.message, **due.fields)
