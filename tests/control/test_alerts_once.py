"""Once: which alerts are worth a delivery. The clock is moved by hand."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.alerts.kinds import KINDS, Kind
from lbctl.alerts.once import Once

DOWN: Kind = "upstream_down"
QUARANTINED: Kind = "upstream_quarantined"
UP: Kind = "upstream_recovered"
SUBJECT = ("db", "10.0.0.1:1")
MINUTE = 60.0


def taken(once: Once, *steps: tuple[float, Kind]) -> list[Kind]:
    """What is delivered at once of alerts that carry their kind as text."""
    return [kind for now, kind in steps if once.take(kind, SUBJECT, kind, now) is not None]


def test_the_same_trouble_is_delivered_once() -> None:
    once = Once(MINUTE)
    assert taken(once, (0, DOWN), (1, DOWN), (1000, DOWN)) == [DOWN]
    assert once.next_due() is None


def test_a_recovery_ends_every_trouble() -> None:
    once = Once(MINUTE)
    steps = ((0, DOWN), (1, QUARANTINED), (2, UP), (3, UP), (100, QUARANTINED), (101, DOWN), (102, UP))
    assert taken(once, *steps) == [DOWN, QUARANTINED, UP, QUARANTINED, DOWN, UP]


def test_the_end_of_trouble_that_nobody_heard_of_is_no_news() -> None:
    assert taken(Once(MINUTE), (0, UP), (100, "app_recovered")) == []


def test_subjects_and_sorts_do_not_touch_each_other() -> None:
    once = Once(MINUTE)
    assert taken(once, (0, DOWN), (0, "app_down")) == [DOWN, "app_down"]
    assert once.take(DOWN, ("db", "10.0.0.2:1"), "other", 0) == "other"
    assert once.take("app_recovered", SUBJECT, "app", 0) == "app"
    assert once.take(DOWN, SUBJECT, "again", 1) is None, "the app's recovery is not the upstream's"


def test_a_certificate_is_delivered_once_for_each_threshold() -> None:
    once = Once(MINUTE)
    days = ["7", "3", "1"] * 2
    taken = [once.take("certificate_expiry", ("a.pem", day), day, 1000) for day in days]
    assert taken == ["7", "3", "1", None, None, None]


@pytest.mark.parametrize("last", [DOWN, UP])
def test_what_flapping_came_to_follows_once_if_it_is_news(last: Kind) -> None:
    once = Once(MINUTE)
    flaps: list[tuple[float, Kind]] = [(n / 10, UP if n % 2 else DOWN) for n in range(100)]
    assert taken(once, *flaps, (50, last)) == [DOWN, UP]
    assert once.next_due() == (MINUTE if last == DOWN else None)
    assert once.due(MINUTE - 0.01) == []
    assert once.due(MINUTE) == ([DOWN] if last == DOWN else [])
    assert once.due(10 * MINUTE) == []
    assert once.next_due() is None


def test_no_interval_delivers_every_change() -> None:
    assert taken(Once(0.0), (0, DOWN), (0, UP), (0, DOWN), (0, DOWN)) == [DOWN, UP, DOWN]


def test_subjects_are_forgotten_when_there_are_too_many() -> None:
    once = Once(MINUTE, remembered_max=2)
    for subject in ("a", "b", "a", "c"):
        once.take(DOWN, (subject,), subject, 0)
    assert once.take(DOWN, ("a",), "a", 1) is None, "heard of after b"
    assert once.take(DOWN, ("b",), "b", 1) == "b"


def test_one_that_is_forgotten_does_not_come_later() -> None:
    once = Once(MINUTE, remembered_max=1)
    assert taken(once, (0, DOWN), (1, UP), (2, DOWN)) == [DOWN, UP]
    assert once.next_due() == MINUTE
    once.take(DOWN, ("other",), "other", 3)
    assert once.next_due() is None
    assert once.due(1000) == []


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([DOWN, QUARANTINED, UP])), max_size=60))
def test_whatever_happens_the_last_state_arrives_and_none_too_often(steps: list[tuple[float, Kind]]) -> None:
    """Waits between alerts, and the alerts."""
    once, now = Once(MINUTE), 0.0
    delivered: list[tuple[float, Kind]] = []
    for wait, kind in steps:
        end = now + wait
        while (due := once.next_due()) is not None and due <= end:
            delivered += [(due, later) for later in _kinds(once.due(due))]
        now = end
        if once.take(kind, SUBJECT, kind, now) is not None:
            delivered.append((now, kind))
    delivered += [(float("inf"), later) for later in _kinds(once.due(float("inf")))]
    for kind in (DOWN, QUARANTINED, UP):
        times = [at for at, what in delivered if what == kind]
        assert all(later - at >= MINUTE - 1e-6 for at, later in itertools.pairwise(times))
    in_trouble = bool(steps) and not KINDS[steps[-1][1]].good
    assert in_trouble == (bool(delivered) and not KINDS[delivered[-1][1]].good)
    if in_trouble:
        since = next((n for n in range(len(delivered), 0, -1) if delivered[n - 1][1] == UP), 0)
        assert steps[-1][1] in [kind for _, kind in delivered[since:]]


def _kinds(texts: list[str]) -> list[Kind]:
    return [kind for kind in KINDS if kind in texts]
