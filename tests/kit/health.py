"""A checker of upstreams whose results are kept."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from kit.waiting import PATIENCE, wait_until
from lbctl.health import Checker, CheckSettings, Result, Target

#: Checked often, patiently, and in step: a test says what it wants else.
EAGER = CheckSettings(interval=0.05, timeout=PATIENCE, rise=1, fall=1, jitter=0.0)
#: Of checks that are to run out of time.
SHORT = 0.3


def target(address: str, app: str = "web", **settings: Any) -> Target:
    """A target; settings differ from `EAGER`."""
    return Target(app, address, replace(EAGER, **settings))


@dataclass(frozen=True)
class Noted:
    """A result as it came.

    Attributes:
        target, result: of it.
        at: monotonic.
    """

    target: Target
    result: Result
    at: float

    @property
    def began(self) -> float:
        """When the check did."""
        return self.at - self.result.took


class Checked:
    """A running `Checker`.

    Args:
        targets: to begin with.
        options: of the checker.

    Attributes:
        checker: it.
        noted: all results, in order.
    """

    def __init__(self, *targets: Target, **options: Any) -> None:
        self.noted: list[Noted] = []
        self.checker = Checker(self._note, **options)
        for one in targets:
            self.checker.add(one)
        self.checker.start()

    def _note(self, target: Target, result: Result) -> None:
        self.noted.append(Noted(target, result, time.monotonic()))

    def of(self, target: Target) -> list[Result]:
        """What came of one target so far."""
        return [noted.result for noted in self.noted if noted.target == target]

    def wait(self, target: Target, count: int = 1) -> list[Result]:
        """The first so many results of a target, when they are there."""
        wait_until(lambda: len(self.of(target)) >= count, f"{count} checks of {target.address}")
        return self.of(target)[:count]

    def close(self) -> None:
        """Stops it, and looks whether its thread has ended."""
        self.checker.stop()
        assert health_threads() == []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def health_threads() -> list[threading.Thread]:
    """The threads of checkers."""
    return [thread for thread in threading.enumerate() if thread.name == "health"]


def first_result(one: Target) -> Result:
    """What comes of the first check of a target."""
    with Checked(one) as checked:
        return checked.wait(one)[0]
