"""Which records are told of: pure, the clock is the test's."""

from __future__ import annotations

from typing import Any

import pytest

import lbcore
from lbcore import RecordSelection, RefusalSum
from lbcore.record_selection import Selector
from lbcore.records import KINDS_MAX

RATE = ("web", "trial-1", "rate")
STRANGER = ("web", None, "no_certificate")


def holding(refusals: int | None) -> Selector:
    return Selector(RecordSelection(refusals=refusals), 100.0)


@pytest.mark.parametrize(("sample", "expected"), [(1.0, 1000), (0.25, 250), (0.1, 100), (0.0, 0)])
def test_a_sample_is_an_even_share(sample: float, expected: int) -> None:
    selector = Selector(RecordSelection(sample), 100.0)
    told = [selector.finished() for _ in range(1000)]
    assert sum(told) == expected
    assert abs(sum(told[:500]) - expected / 2) <= 1


def test_a_sample_is_not_of_refusals() -> None:
    selector = Selector(RecordSelection(0.0), 100.0)
    assert all(selector.refused(*RATE) for _ in range(1000))
    assert selector.flush(100.1) == []


def test_so_many_and_then_a_sum() -> None:
    selector = holding(3)
    assert [selector.refused(*RATE) for _ in range(5)] == [True, True, True, False, False]
    assert selector.summed
    assert selector.roll(100.9) == []
    assert selector.left(100.75) == 0.25
    assert selector.roll(101.0) == [RefusalSum(*RATE, count=2)]
    assert not selector.summed


def test_none_at_all_are_all_in_the_sum() -> None:
    selector = holding(0)
    assert not selector.refused(*STRANGER)
    assert selector.roll(101.0) == [RefusalSum(*STRANGER, count=1)]


def test_a_quiet_window_has_no_sum() -> None:
    selector = holding(3)
    assert selector.refused(*RATE)
    assert not selector.summed
    assert selector.roll(101.0) == []


def test_each_window_starts_anew() -> None:
    selector = holding(1)
    assert selector.refused(*RATE)
    assert not selector.refused(*RATE)
    selector.roll(101.0)
    assert selector.refused(*RATE)
    assert selector.roll(101.5) == []
    assert selector.left(103.0) == 0.0


def test_kinds_do_not_share() -> None:
    selector = holding(1)
    assert selector.refused(*RATE)
    assert selector.refused(*STRANGER)
    assert selector.refused("web", "trial-2", "rate")
    assert selector.refused("web", "trial-1", "concurrent")
    assert selector.refused("api", "trial-1", "rate")


def test_what_is_left_comes_at_the_end() -> None:
    selector = holding(1)
    selector.refused(*RATE)
    selector.refused(*RATE)
    assert selector.flush(100.1) == [RefusalSum(*RATE, count=1)]
    assert selector.flush(100.2) == []


def test_the_table_is_bounded_and_loses_no_count() -> None:
    selector = holding(1)
    for number in range(3 * KINDS_MAX):
        selector.refused("web", f"client-{number}", "rate")
        selector.refused("web", f"client-{number}", "rate")
    sums = selector.flush(100.1)
    assert len(sums) <= KINDS_MAX + 1
    (shared,) = [found for found in sums if found.client is None]
    assert shared == RefusalSum("web", None, "rate", 2 * 2 * KINDS_MAX - 1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"sample": "1"}, TypeError, "sample: a number, not '1'"),
        ({"sample": True}, TypeError, "sample: a number, not True"),
        ({"sample": 1.5}, ValueError, "sample: 0 to 1, not 1.5"),
        ({"refusals": 1.0}, TypeError, "refusals: a whole number or None, not 1.0"),
        ({"refusals": -1}, ValueError, "refusals: 0 to 2147483647, not -1"),
        ({"on_sums": 1}, TypeError, "on_sums: a callable or None, not 1"),
    ],
)
def test_settings_name_what_is_wrong(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        RecordSelection(**options)


def test_an_engine_takes_records_or_lines() -> None:
    lines = lbcore.RecordLines(print, "lb-1", str)
    with pytest.raises(ValueError, match="on_records, record_lines: one of the two"):
        lbcore.Engine(on_records=print, record_lines=lines)
    with pytest.raises(TypeError, match="record_selection: a RecordSelection or None, not 1"):
        lbcore.Engine(record_selection=1)  # type: ignore[arg-type]
