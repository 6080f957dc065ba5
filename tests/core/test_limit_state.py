"""RateLimitManager.snapshot and restore: a restart forgives nothing, a damaged snapshot is refused."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lbcore.limit_state
from lbcore import ManualClock, RateLimitManager

MILLISECOND = 1_000_000  # nanoseconds


class Machine:
    """The clocks that a snapshot is dated by, in the hands of a test. Times are in milliseconds."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self._patched = patched
        self._wall = 1_700_000_000_000
        self._uptime = 1_000_000
        self._boots = 0
        patched.setattr(lbcore.limit_state.time, "time_ns", lambda: self._wall * MILLISECOND)
        patched.setattr(lbcore.limit_state.time, "clock_gettime_ns", self._clock_gettime_ns)
        self.reboot()

    def _clock_gettime_ns(self, clock: int) -> int:
        assert clock == time.CLOCK_BOOTTIME
        return self._uptime * MILLISECOND

    def passes(self, milliseconds: int) -> None:
        """Time goes by."""
        self._wall += milliseconds
        self._uptime += milliseconds

    def step(self, milliseconds: int) -> None:
        """Somebody sets the wall clock."""
        self._wall += milliseconds

    def reboot(self) -> None:
        """The other clock begins again."""
        self._boots += 1
        self._uptime = 10_000
        self._patched.setattr(lbcore.limit_state, "_BOOT_ID", f"boot {self._boots}")


@pytest.fixture
def machine() -> Iterator[Machine]:
    with pytest.MonkeyPatch.context() as patched:
        yield Machine(patched)


def full(**limits: Any) -> RateLimitManager:
    return RateLimitManager("one", clock=ManualClock(), **limits)


def opens(manager: RateLimitManager, attempts: int = 20) -> int:
    """How many of so many attempts at once are admitted."""
    return sum(bool(manager.connection_opened()) for _ in range(attempts))


# ---- what is kept --------------------------------------------------------------------------------


def test_time_that_passed_in_between_counts(machine: Machine) -> None:
    for passed, window, bucket in ((0, 0, 0), (4_000, 0, 2), (9_999, 0, 4), (10_000, 5, 5), (10**9, 5, 5)):
        limits: list[tuple[int, dict[str, Any]]] = [
            (window, {"window": (5, 10)}),
            (bucket, {"rate": 0.5, "burst": 5}),
        ]
        for admitted, limit in limits:
            spent = full(**limit)
            assert opens(spent) == 5
            state = spent.snapshot()
            machine.passes(passed)
            restored = full(**limit)
            restored.restore(state)
            assert opens(restored) == admitted


def test_what_was_owed_in_bytes_is_owed_in_time(machine: Machine) -> None:
    busy = full(bandwidth_out=1000)
    owed = busy.data_transferred(bytes_out=10_000).wait
    state = busy.snapshot()
    machine.passes(4_000)
    again = full(bandwidth_out=1000)
    again.restore(state)
    assert again.data_transferred(bytes_out=1).wait == pytest.approx(owed - 4, abs=0.01)


def test_open_connections_are_not_part_of_it(machine: Machine) -> None:
    before = full(max_open=3)
    assert opens(before) == 3
    after = full(max_open=3)
    after.restore(before.snapshot())
    assert (after.open, opens(after)) == (0, 3)


@pytest.mark.parametrize(
    ("then", "now", "admitted"),
    [
        ({"window": (5, 10)}, {"window": (7, 10)}, 2),
        ({"window": (5, 10)}, {"window": (3, 10)}, 0),
        ({"window": (5, 10)}, {"window": (5, 3600)}, 0),
        ({"window": (5, 10)}, {"window": (5, 1)}, 5),
        ({"window": (5, 10)}, {"rate": 1, "burst": 9}, 9),
        ({"rate": 1, "burst": 5}, {"rate": 1, "burst": 9}, 4),
        ({"rate": 1, "burst": 5}, {"rate": 1, "burst": 2}, 0),
        ({"rate": 1, "burst": 5}, {"rate": 10, "burst": 5}, 0),
        ({"rate": 1, "burst": 5}, {"window": (9, 10)}, 9),
        ({"rate": 1, "burst": 5, "window": (4, 10)}, {"rate": 1, "burst": 6, "window": (6, 10)}, 2),
    ],
)
def test_limits_that_have_changed_take_over_what_they_can(
    machine: Machine, then: dict[str, Any], now: dict[str, Any], admitted: int
) -> None:
    old = full(**then)
    assert opens(old) > 0
    state = old.snapshot()
    machine.passes(2_000 if "window" in now and now["window"][1] == 1 else 0)
    new = full(**now)
    new.restore(state)
    assert opens(new) == admitted


def test_it_comes_before_the_first_connection() -> None:
    state = full(window=(5, 10)).snapshot()
    late = full(window=(5, 10))
    late.connection_opened()
    with pytest.raises(RuntimeError, match="restore: comes before the first connection"):
        late.restore(state)
    assert opens(late) == 4


# ---- clocks --------------------------------------------------------------------------------------

_EVENTS = st.one_of(
    st.tuples(st.just("open"), st.integers(1, 4)),
    st.tuples(st.just("pass"), st.integers(1, 6_000)),
    st.tuples(st.just("step"), st.integers(-(10**8), 10**8)),
    st.tuples(st.just("restart"), st.integers(0, 6_000)),
    st.tuples(st.just("reboot"), st.integers(0, 6_000)),
)


def _most_within(stamps: list[int], period: int) -> int:
    return max((sum(start <= stamp < start + period for stamp in stamps) for start in stamps), default=0)


@given(st.lists(_EVENTS, max_size=40))
@settings(max_examples=300)
def test_no_restart_and_no_step_of_the_clock_ever_admits_more(events: list[tuple[str, int]]) -> None:
    """Over a reboot only the wall clock knows how long it took, so one that was stepped forward in between
    is believed; everything else is not."""
    limits: dict[str, Any] = {"window": (3, 5), "rate": 2, "burst": 2}
    with pytest.MonkeyPatch.context() as patched:
        machine = Machine(patched)
        now, clock = 0, ManualClock()
        manager = RateLimitManager("one", clock=clock, **limits)
        admitted: list[int] = []
        for event, amount in events:
            if event == "open":
                admitted += [now] * opens(manager, amount)
            elif event == "step":
                machine.step(amount)
            else:
                if event != "pass":
                    state = manager.snapshot()
                now += amount
                machine.passes(amount)
                clock.advance(amount / 1000)
                if event == "reboot":
                    machine.step(-min(amount, 100))
                    machine.reboot()
                    clock = ManualClock()
                if event != "pass":
                    manager = RateLimitManager("one", clock=clock, **limits)
                    manager.restore(state)
        assert _most_within(admitted, 5_000) <= 3
        for period in (1, 500, 1_000, 2_000, 10_000):
            assert _most_within(admitted, period) <= 2 + (period * 2 + 999) // 1_000


# ---- damage --------------------------------------------------------------------------------------


def spent_snapshot() -> bytes:
    manager = full(window=(5, 3600), rate=1 / 3600, burst=5, bandwidth_in=10, bandwidth_out=10)
    assert opens(manager) == 5
    manager.data_transferred(1000, 1000)
    return manager.snapshot()


def test_every_damaged_byte_is_noticed_and_changes_nothing() -> None:
    good = spent_snapshot()
    untouched = full(window=(5, 3600), rate=1 / 3600, burst=5, bandwidth_in=10)
    for place in range(len(good)):
        for flip in (0x01, 0x02, 0x04, 0x08, 0x10, 0x40, 0x80, 0xFF):
            damaged = bytearray(good)
            damaged[place] ^= flip
            with pytest.raises(ValueError, match="data: not a snapshot, or a damaged one"):
                untouched.restore(bytes(damaged))
    assert untouched.data_transferred(bytes_in=1)
    assert opens(untouched) == 5


def test_every_cut_is_noticed() -> None:
    good = spent_snapshot()
    untouched = full(window=(5, 3600))
    for length in range(len(good)):
        for part in (good[:length], good[length + 1 :], good[:length] + good[length + 1 :]):
            with pytest.raises(ValueError, match="data: not a snapshot, or a damaged one"):
                untouched.restore(part)
    assert opens(untouched) == 5


def signed(**changes: Any) -> bytes:
    """A snapshot whose checksum is right and whose content is not."""
    content = {**json.loads(spent_snapshot())[1], **changes}
    text = json.dumps(content, separators=(",", ":"), sort_keys=True)
    return json.dumps([zlib.crc32(text.encode()), content]).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "lbcore-limits-2"},
        {"tokens": -1},
        {"tokens": float("nan")},
        {"tokens": float("inf")},
        {"tokens": "1"},
        {"tokens": True},
        {"ages_ns": [-1]},
        {"ages_ns": [2**64]},
        {"ages_ns": {"0": 1}},
        {"ages_ns": 5},
        {"bandwidth_ns": [1]},
        {"bandwidth_ns": None},
        {"boot_ns": "now"},
    ],
    ids=str,
)
def test_content_that_makes_no_sense_is_refused_although_its_checksum_is_right(
    changes: dict[str, Any],
) -> None:
    untouched = full(window=(5, 3600))
    with pytest.raises(ValueError, match="data: not a snapshot, or a damaged one"):
        untouched.restore(signed(**changes))
    assert opens(untouched) == 5


def test_a_million_ages_are_cut_to_what_the_window_holds() -> None:
    manager = full(window=(5, 3600))
    manager.restore(signed(ages_ns=[1] * 100_000))
    assert opens(manager) == 0


@pytest.mark.parametrize("data", [None, "text", 7, [1]])
def test_only_bytes_are_a_snapshot(data: Any) -> None:
    with pytest.raises(TypeError, match="data: bytes of a snapshot, not "):
        full(window=(5, 10)).restore(data)
