"""When checks change a state, when they are due, what settings are refused: nothing that needs a socket."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.health import CheckSettings, CheckTLS, RiseFall
from lbctl.health.failures import SHOWN_MAX, of_answer, of_end, shown
from lbctl.health.schedule import first_delay, period
from lbctl.health.settings import EXPECT_MAX

CHECKS = st.lists(st.booleans(), max_size=60)


def states(counts: RiseFall, checks: str) -> str:
    """After each check, + passed and - failed: U and D where it has changed, u and d else."""
    letters = []
    for check in checks:
        changed = counts.note(check == "+")
        letters.append(counts.state[0].upper() if changed else counts.state[0])
    return "".join(letters)


# ---- rise and fall -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rise", "fall", "checks", "expected"),
    [
        (2, 3, "---", "uuD"),
        (2, 3, "--+--+--+", "uuuuuuuuu"),
        (2, 3, "---+-+-+-", "uuDdddddd"),
        (2, 3, "---++", "uuDdU"),
        (2, 3, "---++--+---", "uuDdUuuuuuD"),
        (1, 1, "-+-+", "DUDU"),
        (3, 1, "-++-+++", "DdddddU"),
        (2, 3, "++++++", "uuuuuu"),
        (2, 3, "------", "uuDddd"),
    ],
)
def test_it_takes_so_many_in_a_row(rise: int, fall: int, checks: str, expected: str) -> None:
    assert states(RiseFall(rise, fall), checks) == expected


def test_the_count_is_of_checks_that_ended_alike() -> None:
    counts = RiseFall(2, 3)
    assert (counts.state, counts.count) == ("up", 0)
    seen = []
    for passed in (True, True, False, False, False, False, True):
        counts.note(passed)
        seen.append(counts.count)
    assert seen == [1, 2, 1, 2, 3, 4, 1]


@given(CHECKS, st.integers(1, 5), st.integers(1, 5))
def test_it_changes_exactly_when_the_last_ones_say_so(checks: list[bool], rise: int, fall: int) -> None:
    counts = RiseFall(rise, fall)
    expected = "up"
    for place, passed in enumerate(checks, 1):
        last_fall, last_rise = checks[max(0, place - fall) : place], checks[max(0, place - rise) : place]
        before = expected
        if len(last_fall) == fall and not any(last_fall):
            expected = "down"
        elif len(last_rise) == rise and all(last_rise):
            expected = "up"
        assert counts.note(passed) == (expected != before)
        assert counts.state == expected


# ---- when ----------------------------------------------------------------------------------------


@given(st.floats(0.01, 1000), st.floats(0, 0.99), st.floats(0, 1, exclude_max=True))
def test_an_interval_is_never_longer_than_it_says(interval: float, jitter: float, number: float) -> None:
    settings = CheckSettings(interval=interval, jitter=jitter)
    assert 0 < interval * (1 - jitter) * (1 - 1e-12) <= period(settings, lambda: number) <= interval
    assert 0 <= first_delay(settings, lambda: number) <= interval


def test_jitter_spreads_over_its_whole_share() -> None:
    settings = CheckSettings(interval=2.0, jitter=0.25)
    numbers = random.Random(1)
    periods = [period(settings, numbers.random) for _ in range(1000)]
    assert 1.5 <= min(periods) < 1.51
    assert 1.99 < max(periods) <= 2.0
    assert 1.73 < sum(periods) / len(periods) < 1.77


def test_without_jitter_it_is_the_interval() -> None:
    assert period(CheckSettings(interval=2.0, jitter=0.0), lambda: 0.7) == 2.0


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"type": "http"}, "type"),
        ({"interval": 0}, "interval"),
        ({"interval": float("inf")}, "interval"),
        ({"timeout": -1.0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"rise": 0}, "rise"),
        ({"fall": 0}, "fall"),
        ({"jitter": 1.0}, "jitter"),
        ({"jitter": -0.1}, "jitter"),
        ({"jitter": float("nan")}, "jitter"),
        ({"expect": b""}, "expect"),
        ({"expect": bytes(EXPECT_MAX + 1)}, "expect"),
        ({"type": "tls"}, "tls"),
        ({"tls": CheckTLS(Path("ca.pem"))}, "tls"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        CheckSettings(**wrong)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"cert": Path("c.pem")}, "cert, key"), ({"key": Path("c.key")}, "cert, key"),
     ({"verify_name": ""}, "verify_name"), ({"verify_name": "a b"}, "verify_name")],
)  # fmt: skip
def test_tls_that_makes_no_sense(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}: "):
        CheckTLS(Path("ca.pem"), **wrong)


def test_what_is_sent_is_not_shown() -> None:
    assert "secret" not in repr(CheckSettings(send=b"AUTH secret"))


# ---- words ---------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_bytes_of_an_upstream_fit_on_a_line(data: bytes) -> None:
    for text in (shown(data), str(of_answer(b"x" + data, b"expected")), str(of_end(data))):
        assert text.isprintable()
        assert len(text) <= 4 * SHOWN_MAX + 80
        assert text.replace("…", "").isascii()


def test_a_difference_far_behind_is_shown() -> None:
    same = b"s" * 100
    text = str(of_answer(same + b"\x1b[31m", same + b"green"))
    assert text == r"the answer goes on with b'\x1b[31m' after 100 bytes, not with b'green'"
