"""The checks of all targets, on one loop: which are due, which run, which wait for their turn."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from lbctl.health.check import check
from lbctl.health.failures import CheckFailed, Unjudged
from lbctl.health.schedule import Random, first_delay, period
from lbctl.health.settings import Target
from lbctl.health.state import Result
from lbctl.health.watch import Checking, Watch

#: The share of the timeout by which a deadline may be noticed too late.
LATE = 0.5
SAY_AGAIN = 60.0  # seconds until the same trouble of this machine is worth another word

OnResult = Callable[[Target, Result], None]

logger = logging.getLogger("lbctl.health")


class Rounds:
    """Begins checks when they are due, so many at once at most, and reports what came of them.

    Args:
        loop: where.
        on_result: called for every check that tells something.
        running_max: checks at once; more wait, the one that was due first goes first.
        random: for the spread.

    Thread-safety: the loop's thread only.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_result: OnResult, running_max: int, random: Random
    ) -> None:
        self._loop = loop
        self._on_result = on_result
        self._running_max = running_max
        self._random = random
        self._running = 0
        self._waiting: deque[Watch] = deque()
        self._said_at = float("-inf")

    def enter(self, watch: Watch) -> None:
        """From now on it is checked."""
        delay = first_delay(watch.plan.settings, self._random)
        watch.timer = self._loop.call_later(delay, self._due, watch)

    def _due(self, watch: Watch) -> None:
        watch.timer = None
        self._waiting.append(watch)
        self._begin()

    def _begin(self) -> None:
        """As many of those that wait as there is room for."""
        while self._waiting and self._running < self._running_max:
            watch = self._waiting.popleft()
            if watch.gone:
                continue
            self._running += 1
            watch.began = self._loop.time()
            watch.task = self._loop.create_task(self._check(watch))
            # Not at the end of the coroutine: one that is cancelled before its first step has no end.
            watch.task.add_done_callback(partial(self._ended, watch))

    async def _check(self, watch: Watch) -> CheckFailed | Unjudged | None:
        """What was wrong. Returned and made anew, not raised: a task and the traceback of its exception hold
        one another, and each failed check would be left to the garbage collector."""
        timeout = watch.plan.settings.timeout
        deadline = watch.began + timeout
        try:
            async with asyncio.timeout_at(deadline):
                await check(watch.plan, deadline)
        except TimeoutError:
            if self._loop.time() > deadline + LATE * timeout and not watch.excused:
                return Unjudged("this process was held up")
            return CheckFailed(f"no answer within {timeout:g}s")
        except (CheckFailed, Unjudged) as error:
            return type(error)(*error.args)
        return None

    def _ended(self, watch: Watch, task: Checking) -> None:
        self._running -= 1
        watch.task = None
        try:
            if not watch.gone:
                self._judge(watch, task)
        finally:
            if not watch.gone:
                due = watch.began + period(watch.plan.settings, self._random)
                watch.timer = self._loop.call_at(due, self._due, watch)
            self._begin()

    def _judge(self, watch: Watch, task: Checking) -> None:
        """An upstream is not held responsible for what this machine lacks."""
        try:
            wrong = task.result()
        except Exception:
            logger.exception("the check of %s came to grief", watch.plan.target.address)
            return
        watch.excused = isinstance(wrong, Unjudged)
        if isinstance(wrong, Unjudged):
            self._complain(watch, wrong)
        else:
            self._report(watch, str(wrong or "passed"), passed=wrong is None)

    def _report(self, watch: Watch, message: str, *, passed: bool) -> None:
        changed = watch.counts.note(passed)
        took = self._loop.time() - watch.began
        result = Result(passed, message, watch.counts.state, changed, watch.counts.count, took)
        try:
            self._on_result(watch.plan.target, result)
        except Exception:
            logger.exception("what came of the check of %s was not taken", watch.plan.target.address)

    def _complain(self, watch: Watch, error: Unjudged) -> None:
        now = self._loop.time()
        if now >= self._said_at + SAY_AGAIN:
            self._said_at = now
            logger.warning("upstreams cannot be checked, %s among them: %s", watch.plan.target.address, error)
