"""What the control plane calls when an operator should know something soon."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from lbctl.alerts.command import Command
from lbctl.alerts.deliveries import PAUSES, WAITING_MAX, Deliveries, Say
from lbctl.alerts.hook import Hook
from lbctl.alerts.kinds import Kind, Subject
from lbctl.alerts.once import Once
from lbctl.alerts.webhook import Webhook
from lbctl.config.model import Alerts as Settings
from lbctl.errors import LbctlError
from lbctl.logs.lines import json_format

CLOSE_WITHIN = 2.0  # seconds for what waits


class Alerts:
    """Delivers alerts to the hooks of a configuration. The log is the caller's.

    Args:
        settings: the section `alerts`; None: every alert is dropped.
        node: the node's name.
        say: how the operator hears that a hook fails (`alert.failed`, `alert.resumed`, `alert.lost`); it may
            not call back.
        clock: monotonic seconds, of intervals.
        wall: the time of alerts.
        pauses: seconds before each further try of a delivery.
        waiting_max: alerts that may wait for a hook.

    Thread-safety: every method may be called from any thread. None waits for a hook, except `close`.

    Raises:
        LbctlError: the CA certificates of the webhook cannot be used.
    """

    def __init__(
        self,
        settings: Settings | None,
        node: str,
        say: Say,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        pauses: tuple[float, ...] = PAUSES,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._format = json_format(node, "alert")
        self._clock, self._wall = clock, wall
        self._lock = threading.Lock()
        self._closed = False
        self._once = Once(settings.min_interval if settings is not None else 0.0)
        self._deliveries = [
            Deliveries(hook, say, self._ripen, pauses=pauses, waiting_max=waiting_max)
            for hook in (_hooks(settings) if settings is not None else ())
        ]

    def alert(self, kind: Kind, subject: Subject, message: str, **fields: Any) -> None:
        """Has an alert delivered, unless it is known.

        Args:
            kind: what has happened.
            subject: to whom, such as ``("db", "10.0.1.11:5432")``: alerts of other subjects are others.
            message: its prose.
            fields: what else is in it; values that JSON has.
        """
        if not self._deliveries:
            return
        text = self._format(kind, self._wall(), {**fields, "message": message})
        with self._lock:
            if not self._closed:
                text_now = self._once.take(kind, subject, text, self._clock())
                self._put([] if text_now is None else [text_now])

    def start(self) -> None:
        """Begins to deliver; what came before waits until here."""
        for deliveries in self._deliveries:
            deliveries.start()

    def close(self, within: float = CLOSE_WITHIN) -> None:
        """Delivers what waits, for so many seconds at most; a program that runs then is killed."""
        with self._lock:
            if self._closed:
                return
            self._put(self._once.due(float("inf")))
            self._closed = True
        for deliveries in self._deliveries:
            deliveries.stop()
        deadline = time.monotonic() + within
        for deliveries in self._deliveries:
            deliveries.join(max(0.0, deadline - time.monotonic()))

    def _ripen(self) -> float | None:
        """Hands over what had to wait for `min_interval`; in how many seconds there will be more."""
        with self._lock:
            now = self._clock()
            due = self._once.due(now)
            if due:
                self._put(due)
            following = self._once.next_due()
        return None if following is None else max(0.0, following - now)

    def _put(self, texts: list[str]) -> None:
        """To each hook; with the lock, so that all get them in one order."""
        for deliveries in self._deliveries:
            deliveries.put([text.encode() for text in texts])


def _hooks(settings: Settings) -> list[Hook]:
    hooks: list[Hook] = []
    if settings.command is not None:
        hooks.append(Command(settings.command, settings.timeout))
    if settings.webhook is not None:
        try:
            hooks.append(Webhook(settings.webhook, settings.ca, settings.timeout))
        except OSError as error:
            raise LbctlError(f"alerts.ca: {error.strerror or error}") from None
    return hooks
