"""The thread on which upstreams are checked."""

from __future__ import annotations

import asyncio
import logging
import random
import threading

from lbctl.health.context import Contexts
from lbctl.health.plan import make_plan
from lbctl.health.rounds import OnResult, Rounds
from lbctl.health.schedule import Random
from lbctl.health.settings import Target
from lbctl.health.watch import Watch

RUNNING_MAX = 256  # checks at once
STOP_WITHIN = 5.0  # seconds for the thread to end; only an `on_result` that hangs takes longer

logger = logging.getLogger("lbctl.health")


class Checker:
    """Checks targets until it is stopped.

    A target is taken for up until its checks say otherwise. One that is added again, after it was removed,
    begins anew.

    Args:
        on_result: called on the health thread for every check; the next checks wait while it runs. What it
            raises is logged. A check that tells nothing about the upstream, because this machine lacked
            descriptors, ports or time, is not reported; a warning to the logger "lbctl.health" is.
        running_max: checks at once; more wait for their turn, which is not held against them.
        random: numbers from 0 to less than 1.

    Thread-safety: every method may be called from any thread at any time, but `stop` not by `on_result`.
    """

    def __init__(
        self, on_result: OnResult, *, running_max: int = RUNNING_MAX, random: Random = random.random
    ) -> None:
        self._on_result = on_result
        self._running_max = running_max
        self._random = random
        self._contexts = Contexts()
        self._lock = threading.Lock()
        self._watches: dict[Target, Watch] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rounds: Rounds | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to check, each target after some part of its interval.

        Raises:
            OSError: no descriptors.
            RuntimeError: it has been started before.
        """
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("a checker starts once")
            self._loop = asyncio.new_event_loop()
            self._rounds = Rounds(self._loop, self._on_result, self._running_max, self._random)
            for watch in self._watches.values():
                self._loop.call_soon(self._rounds.enter, watch)
            self._thread = threading.Thread(target=_run, args=(self._loop,), name="health", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Breaks off the checks that run, and waits for the thread to end. Later calls do nothing."""
        with self._lock:
            loop, self._loop = self._loop, None
            watches = list(self._watches.values())
            self._watches.clear()
        if loop is None or self._thread is None:
            return
        for watch in watches:
            watch.gone = True
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(STOP_WITHIN)
        if self._thread.is_alive():
            logger.error("the health thread does not end: whoever takes its results is busy")

    def add(self, target: Target) -> None:
        """Begins to check a target; one that is checked already goes on as it was.

        Raises:
            OSError: a file cannot be read; `filename` says which.
            ValueError: the address is none, a file is not what it should be, or TLS lacks a name.
        """
        with self._lock:
            if target in self._watches:
                return
        watch = Watch(make_plan(target, self._contexts))  # reads files, so not with the lock
        with self._lock:
            if self._is_stopped() or self._watches.setdefault(target, watch) is not watch:
                return
            if self._loop is not None and self._rounds is not None:
                self._loop.call_soon_threadsafe(self._rounds.enter, watch)

    def remove(self, target: Target) -> None:
        """Ends the checks of a target, if there are any. When it returns, one call of `on_result` about it
        may be under way, and no other comes."""
        with self._lock:
            watch = self._watches.pop(target, None)
            if watch is None:
                return
            watch.gone = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(watch.end)

    def _is_stopped(self) -> bool:
        return self._thread is not None and self._loop is None


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """The thread, until the loop is stopped; whatever runs then is broken off and closed."""
    try:
        loop.run_forever()
        loop.run_until_complete(_break_off())
    finally:
        loop.close()


async def _break_off() -> None:
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        task.cancel()
    if running:
        await asyncio.wait(running)
