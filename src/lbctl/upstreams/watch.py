"""What has become of upstreams since the last look, as events and alerts: once for each change.

Checks tell of theirs at once. Quarantines are the data plane's own doing, so somebody has to look: one that
has come and gone between two looks is told all the same, because the core counts them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from lbctl.alerts.kinds import Kind, Subject
from lbctl.upstreams.pool import Pool

State = Literal["up", "down", "quarantined"]
_ALERTS: dict[State, Kind] = {
    "up": "upstream_recovered",
    "down": "upstream_down",
    "quarantined": "upstream_quarantined",
}
_FATES = {"keep": "kept", "drain": "drained", "cut": "cut"}
_GONE = "it is no upstream any more: its name has left it out"
_QUARANTINED = "connections to it failed in a row; one is tried now and then"


class Alert(Protocol):
    """Where alerts go: ``Alerts.alert``."""

    def __call__(self, kind: Kind, subject: Subject, message: str, **fields: object) -> None: ...


@dataclass
class _Seen:
    """An upstream as it was last told."""

    state: State = "up"
    quarantines: int = 0


class Watch:
    """Says what changes.

    Args:
        say: gets an event: its name, and fields.
        alert: gets an alert: its kind, what it is about, words, and fields.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(self, say: Callable[..., None], alert: Alert) -> None:
        self._say, self._alert = say, alert
        self._lock = threading.Lock()
        self._upstreams: dict[str, dict[str, _Seen]] = {}
        self._down: set[str] = set()  # apps none of whose upstreams is up
        self._versions: dict[str, tuple[int, int]] = {}  # of pools, when they were last looked at

    def checked(self, pool: Pool, address: str, *, up: bool, passed: bool, message: str) -> None:
        """Takes the result of a check to the pool, and says what it has changed.

        Where no other upstream is up, the first check that passes will do: to wait for more would only keep
        clients out. So it is up from then on as long as checks pass.
        """
        with self._lock:
            is_down = self._seen(pool.name, address).state == "down"
            up = up or (passed and not (is_down and pool.has_others_up(address)))
            still_open = pool.checked(address, up=up, passed=passed)
            if still_open is None:
                self._upstreams[pool.name].pop(address, None)
                return
            if not up and not is_down:
                fate = _FATES[pool.app.on_down]
                kept = f" ({still_open} open connections {fate})" if still_open else ""
                self._became(pool.name, address, "down", f"{message}{kept}")
            elif up and passed and is_down:
                self._became(pool.name, address, "up", message)
            else:
                return
            self._look_at(pool)

    def look(self, pools: Iterable[Pool]) -> None:
        """Says what has changed since the last look."""
        with self._lock:
            for pool in pools:
                if pool.version() != self._versions.get(pool.name):
                    self._look_at(pool)

    # ---- details; called with the lock held

    def _look_at(self, pool: Pool) -> None:
        self._versions[pool.name] = pool.version()  # before: what happens meanwhile is seen the next time
        states = pool.states()
        known = self._upstreams.setdefault(pool.name, {})
        for address in [address for address in known if address not in states]:
            self._gone(pool.name, address, known.pop(address))
        for address, (state, quarantines) in states.items():
            seen = self._seen(pool.name, address)
            if quarantines > seen.quarantines and seen.state == "up":
                self._became(pool.name, address, "quarantined", _QUARANTINED)
            seen.quarantines = quarantines
            if seen.state == "quarantined" and state == "up":
                self._became(pool.name, address, "up", "it answers again")
        self._app(pool.name, any(state == "up" for state, _ in states.values()))

    def _app(self, app: str, up: bool) -> None:
        if up and app in self._down:
            self._down.remove(app)
            message = "an upstream is up again"
            self._say("app", app=app, state="UP", message=message)
            self._alert("app_recovered", (app,), message, app=app)
        elif not up and app not in self._down:
            self._down.add(app)
            message = "no upstream is up: clients are refused (no_upstream)"
            self._say("app", app=app, state="DOWN", message=message)
            self._alert("app_down", (app,), message, app=app)

    def _gone(self, app: str, address: str, seen: _Seen) -> None:
        """Whoever was alerted has to hear that it is over: else trouble after a return would be no news."""
        if seen.state != "up":
            self._alert("upstream_recovered", (app, address), _GONE, app=app, upstream=address)

    def _became(self, app: str, address: str, state: State, message: str) -> None:
        self._seen(app, address).state = state
        self._say("upstream", app=app, upstream=address, state=state.upper(), message=message)
        self._alert(_ALERTS[state], (app, address), message, app=app, upstream=address)

    def _seen(self, app: str, address: str) -> _Seen:
        return self._upstreams.setdefault(app, {}).setdefault(address, _Seen())
