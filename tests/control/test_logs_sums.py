"""Refusals held to a rate: pure, the clock is the test's."""

from __future__ import annotations

from lbctl.logs.sums import KEYS_MAX, DenySums, Key

RATE = Key("conn.deny", "web", "trial-1", "rate")
STRANGER = Key("conn.deny", "web", None, "no_certificate")


def test_so_many_lines_and_then_a_sum() -> None:
    sums = DenySums(3, 100.0)
    assert [sums.admit(RATE) for _ in range(5)] == [True, True, True, False, False]
    assert sums.roll(100.9) == []
    assert sums.roll(101.0) == [(RATE, 2)]


def test_a_quiet_window_has_no_sum() -> None:
    sums = DenySums(3, 100.0)
    assert sums.admit(RATE)
    assert sums.roll(101.0) == []


def test_each_window_starts_anew() -> None:
    sums = DenySums(1, 100.0)
    assert sums.admit(RATE)
    assert not sums.admit(RATE)
    sums.roll(101.0)
    assert sums.admit(RATE)
    assert sums.roll(101.5) == []


def test_keys_do_not_share() -> None:
    sums = DenySums(1, 100.0)
    assert sums.admit(RATE)
    assert sums.admit(STRANGER)
    assert sums.admit(RATE._replace(client="trial-2"))
    assert sums.admit(RATE._replace(reason="concurrent"))


def test_what_is_left_comes_at_the_end() -> None:
    sums = DenySums(1, 100.0)
    sums.admit(RATE)
    sums.admit(RATE)
    assert sums.flush(100.1) == [(RATE, 1)]
    assert sums.flush(100.2) == []


def test_the_table_is_bounded_and_loses_no_count() -> None:
    sums = DenySums(1, 100.0)
    for number in range(3 * KEYS_MAX):
        key = RATE._replace(client=f"client-{number}")
        sums.admit(key)
        sums.admit(key)
    summed = sums.flush(100.1)
    assert len(summed) <= KEYS_MAX + 1
    shared = dict(summed)[RATE._replace(client=None)]
    assert shared == 2 * 2 * KEYS_MAX - 1
