"""What came of checks, and when it changes an upstream's state; pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["up", "down"]


@dataclass(frozen=True)
class Result:
    """What came of one check.

    Attributes:
        passed: whether it passed.
        message: "passed", or why not, in words fit for one line; never longer than a few hundred characters.
        state: the upstream's, with this check counted.
        changed: whether this check has changed it.
        count: checks in a row, up to this one, that ended like this one.
        took: seconds.
    """

    passed: bool
    message: str
    state: State
    changed: bool
    count: int
    took: float


class RiseFall:
    """The state of an upstream. It starts "up", so that a start is not an outage.

    Args:
        rise: checks passed in a row that make it "up".
        fall: checks failed in a row that make it "down".

    Attributes:
        state: "up" or "down".
        count: how many of the last checks in a row ended alike.

    Thread-safety: none.
    """

    __slots__ = ("_fall", "_passing", "_rise", "count", "state")

    def __init__(self, rise: int, fall: int) -> None:
        self._rise, self._fall = rise, fall
        self._passing = True
        self.state: State = "up"
        self.count = 0

    def note(self, passed: bool) -> bool:
        """Counts one check; whether it has changed the state."""
        self.count = self.count + 1 if passed == self._passing else 1
        self._passing = passed
        before = self.state
        if passed and self.count >= self._rise:
            self.state = "up"
        elif not passed and self.count >= self._fall:
            self.state = "down"
        return self.state != before
