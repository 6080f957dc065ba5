"""When checks are due; pure."""

from __future__ import annotations

from collections.abc import Callable

from lbctl.health.settings import CheckSettings

#: A number from 0 to less than 1.
Random = Callable[[], float]


def first_delay(settings: CheckSettings, random: Random) -> float:
    """Seconds until the first check: some part of the interval, so that many targets are spread over it."""
    return settings.interval * random()


def period(settings: CheckSettings, random: Random) -> float:
    """Seconds from the start of a check to the start of the next: never more than the interval."""
    return settings.interval * (1 - settings.jitter * random())
