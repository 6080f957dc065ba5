"""The alerts that wait for one hook, and the thread that delivers them, one after the other."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from lbctl.alerts.hook import Hook, NotDelivered
from lbctl.interrupt import Interrupt

WAITING_MAX = 1000  # alerts
PAUSES = (1.0, 5.0)  # seconds before each further try
_GO_WITHIN = 2.0  # seconds for a delivery that was given up to end

#: Writes an event: its name and its fields.
Say = Callable[..., None]


class Deliveries:
    """A bounded queue to a hook. Nobody who puts something into it waits.

    Args:
        hook: where to.
        say: how the operator hears that it fails, once for each problem, and that it works again.
        more: called before each wait; it may `put`, and says in how many seconds it wants to be called
            again, or None.
        pauses: seconds before each further try.
        waiting_max: alerts that may wait; the oldest goes for a new one.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(
        self,
        hook: Hook,
        say: Say,
        more: Callable[[], float | None],
        *,
        pauses: tuple[float, ...] = PAUSES,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._hook, self._say, self._more = hook, say, more
        self._pauses, self._waiting_max = pauses, waiting_max
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._woken = False
        self._stopping = threading.Event()
        self._interrupt = Interrupt()
        self._under_way = False
        self._given_up = False
        self._dropped = 0  # since the operator heard of it
        self._failed = 0  # since then, tried in vain
        self._problem: str | None = None  # as last said
        self._thread: threading.Thread | None = None

    # ---- in

    def put(self, alerts: list[bytes]) -> None:
        """Adds alerts, which may be none: then the thread only asks `more` again."""
        with self._changed:
            first = self._dropped == 0
            self._waiting.extend(alerts)
            while len(self._waiting) > self._waiting_max:
                self._waiting.popleft()
                self._dropped += 1
            overflowed = first and self._dropped > 0
            self._woken = True
            self._changed.notify()
        if overflowed:
            message = f"{self._waiting_max} wait for it; the oldest are dropped"
            self._say("alert.lost", hook=self._hook.name, message=message)

    # ---- the life of the thread

    def start(self) -> None:
        """Begins to deliver."""
        self._thread = threading.Thread(target=self._run, name=f"alerts-{self._hook.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Makes the thread end when nothing waits any more. A delivery that fails is not tried again."""
        with self._changed:
            self._stopping.set()
            self._changed.notify()

    def join(self, within: float) -> None:
        """After `stop`: waits for the end, gives up what is left then, and says how many never arrived."""
        thread = self._thread
        if thread is not None:
            thread.join(within)
        with self._changed:
            self._given_up = True
            lost = len(self._waiting) + self._under_way + self._failed + self._dropped
            self._waiting.clear()
        if thread is not None and thread.is_alive():
            self._interrupt.set()
            thread.join(_GO_WITHIN)
        if lost:
            message = "not delivered before the stop"
            self._say("alert.lost", hook=self._hook.name, count=lost, message=message)

    # ---- on the thread

    def _run(self) -> None:
        while (alert := self._next()) is not None:
            self._deliver(alert)

    def _next(self) -> bytes | None:
        """Waits for the next alert; None: that was all."""
        while True:
            with self._changed:
                self._woken = self._under_way = False
            wait = self._more()
            with self._changed:
                if not (self._waiting or self._woken or self._stopping.is_set()):
                    self._changed.wait(wait)
                if self._waiting:
                    self._under_way = True
                    return self._waiting.popleft()
                if self._stopping.is_set():
                    return None

    def _deliver(self, alert: bytes) -> None:
        failure = self._try(alert)
        for pause in self._pauses:
            if failure is None or self._stopping.wait(pause):
                break
            failure = self._try(alert)
        if self._given_up:
            return  # `join` says so
        if failure is None:
            self._works()
        else:
            self._fails(failure)

    def _try(self, alert: bytes) -> NotDelivered | None:
        try:
            self._hook.deliver(alert, self._interrupt)
        except NotDelivered as failure:
            return failure
        except Exception as error:  # one that nobody thought of must not end the thread
            return NotDelivered(f"an error of this program: {error!r}")
        return None

    def _fails(self, failure: NotDelivered) -> None:
        self._failed += 1
        if failure.problem != self._problem:
            self._problem = failure.problem
            fields: dict[str, Any] = {"hook": self._hook.name, "message": failure.problem}
            self._say("alert.failed", **fields, **failure.details)

    def _works(self) -> None:
        """Says what was lost, once nothing more is."""
        with self._changed:
            if self._problem is None and (self._dropped == 0 or self._waiting):
                return
            lost = self._failed + self._dropped
            self._failed = self._dropped = 0
        self._problem = None
        self._say("alert.resumed", hook=self._hook.name, lost=lost)
