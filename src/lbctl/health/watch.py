"""One target, while it is being checked."""

from __future__ import annotations

import asyncio

from lbctl.health.failures import CheckFailed, Unjudged
from lbctl.health.plan import Plan
from lbctl.health.state import RiseFall

#: A check that runs, and then what was wrong.
Checking = asyncio.Task[CheckFailed | Unjudged | None]


class Watch:
    """What a checker keeps of a target.

    Attributes:
        plan: how it is checked.
        counts: what came of it.
        gone: nobody wants to know any more; set by any thread, everything else is the health thread's.
        timer: until the next check, or None.
        task: the check that runs, or None.
        began: when the last check began, by the loop's clock.
        excused: the last check was not judged.
    """

    __slots__ = ("began", "counts", "excused", "gone", "plan", "task", "timer")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.counts = RiseFall(plan.settings.rise, plan.settings.fall)
        self.gone = False
        self.timer: asyncio.TimerHandle | None = None
        self.task: Checking | None = None
        self.began = 0.0
        self.excused = False

    def end(self) -> None:
        """No check begins any more, and the one that runs is broken off."""
        self.gone = True
        if self.timer is not None:
            self.timer.cancel()
        if self.task is not None:
            self.task.cancel()
