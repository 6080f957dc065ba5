"""What an alert is delivered to."""

from __future__ import annotations

from typing import Protocol

from lbctl.interrupt import Interrupt


class NotDelivered(Exception):
    """A delivery failed.

    Attributes:
        problem: why, the same words for the same cause.
        details: fields that say more, for the log.
    """

    def __init__(self, problem: str, **details: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.details = details


class Hook(Protocol):
    """Somebody who is to hear of alerts.

    Attributes:
        name: the key of the configuration.
    """

    name: str

    def deliver(self, alert: bytes, interrupt: Interrupt) -> None:
        """Delivers one alert, or gives up in time.

        Args:
            alert: a JSON object.
            interrupt: ends it from another thread.

        Raises:
            NotDelivered: it did not arrive.
        """
