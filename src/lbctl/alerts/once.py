"""Which alerts are worth a delivery.

An alert is delivered once, until the opposite was: a recovery ends every trouble of its subject. A subject
that flaps is delivered at most once for each kind in `min_interval`; what it came to in the end follows when
that is over, unless it is what was delivered last.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from lbctl.alerts.kinds import KINDS, Kind, Subject

REMEMBERED_MAX = 32_768  # subjects of one sort; the one that was heard of least lately goes first


@dataclass(slots=True)
class _State:
    """What somebody was told about a subject.

    Attributes:
        told: the kinds of trouble, since the last recovery.
        at: when each kind was delivered last.
    """

    told: set[Kind] = field(default_factory=set)
    at: dict[Kind, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Later:
    """What is to be delivered when the interval is over."""

    at: float
    kind: Kind
    text: str


class Once:
    """Takes every alert, gives back what is to be delivered.

    Args:
        min_interval: seconds.
        remembered_max: subjects of one sort.

    Time is what the caller says it is. Not thread-safe.
    """

    def __init__(self, min_interval: float, remembered_max: int = REMEMBERED_MAX) -> None:
        self._interval = min_interval
        self._remembered_max = remembered_max
        self._states: dict[str, OrderedDict[Subject, _State]] = {
            nature.about: OrderedDict() for nature in KINDS.values()
        }
        self._later: dict[tuple[str, Subject], _Later] = {}

    def take(self, kind: Kind, subject: Subject, text: str, now: float) -> str | None:
        """The text, if it is to be delivered now."""
        key = (KINDS[kind].about, subject)
        state = self._state(*key)
        self._later.pop(key, None)
        if _known(state, kind):
            return None
        at = state.at.get(kind, float("-inf")) + self._interval
        if now < at:
            self._later[key] = _Later(at, kind, text)
            return None
        _deliver(state, kind, now)
        return text

    def due(self, now: float) -> list[str]:
        """The texts that had to wait and need not any more."""
        ripe = [(key, later) for key, later in self._later.items() if later.at <= now]
        for (about, subject), later in ripe:
            _deliver(self._state(about, subject), later.kind, now)
            del self._later[about, subject]
        return [later.text for _, later in ripe]

    def next_due(self) -> float | None:
        """When the first of those is, None without any."""
        return min((later.at for later in self._later.values()), default=None)

    def _state(self, about: str, subject: Subject) -> _State:
        states = self._states[about]
        state = states.setdefault(subject, _State())
        states.move_to_end(subject)
        if len(states) > self._remembered_max:
            forgotten, _ = states.popitem(last=False)
            self._later.pop((about, forgotten), None)
        return state


def _known(state: _State, kind: Kind) -> bool:
    """Whether it says what was said. Where nobody heard of trouble, its end is no news."""
    return not state.told if KINDS[kind].good else kind in state.told


def _deliver(state: _State, kind: Kind, now: float) -> None:
    state.at[kind] = now
    if KINDS[kind].good:
        state.told.clear()
    else:
        state.told.add(kind)
