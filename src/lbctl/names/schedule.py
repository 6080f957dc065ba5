"""When a name is asked again."""

from __future__ import annotations

import random
from collections.abc import Callable

TTL_MIN, TTL_MAX = 1.0, 3600.0  # seconds; a TTL of 0 is the smaller one
RETRY_MIN, RETRY_MAX = 1.0, 30.0  # seconds after a failure, doubled each time
_EARLIER = 0.25  # at most, as a part of the pause, so that names that failed together do not stay together
_chance = random.SystemRandom()


class Schedule:
    """The pauses of one name.

    Args:
        chance: from 0 to 1, another one each time.

    Thread-safety: none; one thread uses it.
    """

    def __init__(self, chance: Callable[[], float] = _chance.random) -> None:
        self._chance = chance
        self._retry = RETRY_MIN

    def pause(self, ttl: float, *, failed: bool) -> float:
        """Seconds from a look-up to the next one.

        Args:
            ttl: of the answer, in seconds; infinite when there is none.
            failed: something was not answered.
        """
        holds = min(max(ttl, TTL_MIN), TTL_MAX)
        if not failed:
            self._retry = RETRY_MIN
            return holds
        retry, self._retry = self._retry, min(2 * self._retry, RETRY_MAX)
        return min(holds, retry * (1 - _EARLIER * self._chance()))
