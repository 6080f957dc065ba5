"""Holding refusals to a rate, so that a stranger cannot fill the disk.

Pure but for what it remembers: the time is passed in. One thread at a time.
"""

from __future__ import annotations

from typing import NamedTuple

WINDOW = 1  # seconds
KEYS_MAX = 4096


class Key(NamedTuple):
    """What is counted together. Strangers of one app and reason are one key, wherever they come from:
    addresses are free, so a key for each would fill the table and the disk."""

    event: str
    app: str
    client: str | None
    reason: str


class DenySums:
    """At most `limit` lines for each key and window; the rest is counted.

    Args:
        limit: lines for each key in one window.
        now: the monotonic clock.
    """

    def __init__(self, limit: int, now: float) -> None:
        self._limit = limit
        self._ends = now + WINDOW
        self._seen: dict[Key, int] = {}

    def admit(self, key: Key) -> bool:
        """Counts a refusal; whether its line may be written."""
        if key not in self._seen and len(self._seen) >= KEYS_MAX:
            key = key._replace(client=None)  # as many as apps and reasons
        count = self._seen.get(key, 0) + 1
        self._seen[key] = count
        return count <= self._limit

    def roll(self, now: float) -> list[tuple[Key, int]]:
        """When the window is over: how many lines each key was short of, and a new window."""
        if now < self._ends:
            return []
        return self.flush(now)

    def flush(self, now: float) -> list[tuple[Key, int]]:
        """Ends the window now."""
        summed = [(key, count - self._limit) for key, count in self._seen.items() if count > self._limit]
        self._seen.clear()
        self._ends = now + WINDOW
        return summed
