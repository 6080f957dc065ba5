"""When the end of a certificate is near enough for an alert: once for each threshold.

    watch = ExpiryWatch(config.tls.expiry_warning)
    for named in named_certificates(config):
        for due in watch.seen("file", str(named.path), named.serial, named.not_after):
            alerts.alert("certificate_expiry", due.subject, due.message, **due.fields)

It only looks at dates. Whether a client may say who it is has to be clear before: a certificate that was not
proven is nobody's, and strangers could fill the log with them.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from lbctl.alerts.kinds import Subject
from lbctl.config.named import remaining
from lbctl.config.values import format_duration
from lbctl.logs.printable import printable
from lbctl.logs.records import serial_text

DAY = 86400.0
THRESHOLDS = (30 * DAY, 7 * DAY, DAY)  # seconds
REMEMBERED_MAX = 10_000  # certificates; the one that was seen least lately goes first

#: Whose certificate: one a file of the configuration holds, or one a client showed.
Whose = Literal["file", "client"]


@dataclass(frozen=True)
class Expiry:
    """An alert that is due.

    Attributes:
        subject: of `Alerts.alert`: the certificate and the threshold.
        message: prose.
        fields: `file` or `client`, `serial`, `not_after`, `threshold`.
    """

    subject: Subject
    message: str
    fields: dict[str, Any]


class ExpiryWatch:
    """Remembers for which certificates, and how long before their end, an alert was due.

    Args:
        thresholds: seconds before the end.
        clock: the time, seconds since the epoch.
        remembered_max: certificates of clients, and of files. One that was forgotten is due again.

    Thread-safety: `seen` may be called from any thread.
    """

    def __init__(
        self,
        thresholds: Iterable[float] = THRESHOLDS,
        *,
        clock: Callable[[], float] = time.time,
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        self._thresholds = sorted(thresholds)
        self._clock = clock
        self._remembered_max = remembered_max
        self._lock = threading.Lock()
        # The lowest threshold that was due, by certificate. Those of files are few, and never forgotten
        # for clients that come and go.
        self._due: dict[Whose, OrderedDict[tuple[str, int], float]] = {
            "file": OrderedDict(),
            "client": OrderedDict(),
        }

    def seen(self, whose: Whose, name: str, serial: int, not_after: datetime) -> list[Expiry]:
        """What is due for a certificate, whenever somebody comes across it.

        Of several thresholds that have passed since it was seen last only the lowest is due.

        Args:
            whose: what `name` is a name of.
            name: a path, or a client's name.
            serial: another one is another certificate: what is due begins anew.
            not_after: its end, with a zone.
        """
        now = self._clock()
        left = not_after.timestamp() - now
        threshold = next((threshold for threshold in self._thresholds if left < threshold), None)
        if threshold is None or not self._note(whose, (name, serial), threshold):
            return []
        return [_expiry(whose, name, serial, not_after, threshold, now)]

    def _note(self, whose: Whose, certificate: tuple[str, int], threshold: float) -> bool:
        """Whether no threshold as low as this was due for it."""
        with self._lock:
            known = self._due[whose]
            before = known.get(certificate, float("inf"))
            known[certificate] = min(before, threshold)
            known.move_to_end(certificate)
            if len(known) > self._remembered_max:
                known.popitem(last=False)
            return threshold < before


def _expiry(
    whose: Whose, name: str, serial: int, not_after: datetime, threshold: float, now: float
) -> Expiry:
    spelled = format_duration(threshold)
    what = name if whose == "file" else f"the certificate of client {name}"
    return Expiry(
        subject=(whose, name, serial, spelled),
        message=f"{printable(what)} {remaining(not_after, datetime.fromtimestamp(now, UTC))}",
        fields={
            whose: name,
            "serial": serial_text(serial),
            "not_after": f"{not_after.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "threshold": spelled,
        },
    )
