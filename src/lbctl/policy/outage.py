"""Whether something we ask is down, how often it is tried meanwhile, and what the operator is told."""

from __future__ import annotations

import threading
from collections.abc import Callable

FAILURES = 3  # in a row, until it counts as down
PAUSE = 1.0  # seconds between two tries while it is down
SAY_AGAIN = 60.0  # seconds until the same problem is worth another word

#: Writes an event: its name and its fields.
Say = Callable[..., None]


class Outage:
    """The state of a client store, from what became of its questions.

    Args:
        url: of the store, for the operator.
        say: how the operator hears of it.
        clock: monotonic seconds.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(self, url: str, say: Say, clock: Callable[[], float]) -> None:
        self._url = url
        self._say = say
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._down = False
        self._next_try = 0.0
        self._trying = False
        self._said: dict[str, float] = {}  # problem: when it was named

    def may_ask(self) -> bool:
        """Whether to put a question; while it is down one at a time may. `over` or `failed` must follow."""
        with self._lock:
            if not self._down:
                return True
            if self._trying or self._clock() < self._next_try:
                return False
            self._trying = True
            return True

    def over(self) -> None:
        """A question was answered."""
        with self._lock:
            was_down = self._down
            self._failures, self._down, self._trying = 0, False, False
            if was_down:
                self._said.clear()
        if was_down:
            self._say("client_store.up", url=self._url)

    def failed(self, problem: str, serial: str, *, down: bool) -> None:
        """A question was not answered.

        Args:
            problem: why, the same words for the same cause.
            serial: whom it was about.
            down: whether it says something about others, too.
        """
        with self._lock:
            now = self._clock()
            if down:
                self._failures += 1
                self._next_try, self._trying = now + PAUSE, False
            began = self._failures >= FAILURES and not self._down
            silent = self._down or now < self._said.get(problem, float("-inf")) + SAY_AGAIN
            if began:
                self._down = True
            elif not silent:
                self._said = {text: at for text, at in self._said.items() if now < at + SAY_AGAIN}
                self._said[problem] = now
        if began:
            self._say("client_store.down", url=self._url, message=problem)
        elif not silent:
            self._say("client_store.failed", url=self._url, serial=serial, message=problem)
