"""How fast connections may be opened: strict windows against a list of times, buckets of those who wait."""

from __future__ import annotations

import random
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.racing import race

SECOND = 10**9


def most_in_any(times: list[int], period: int) -> int:
    """The most opens that any window of that length (half open) holds."""
    times = sorted(times)
    best = start = 0
    for end, time in enumerate(times):
        while time - times[start] >= period:
            start += 1
        best = max(best, end - start + 1)
    return best


class TestWindow:
    @given(
        most=st.integers(1, 7),
        period=st.integers(1, 50),
        steps=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=120),
    )
    def test_it_admits_what_a_list_of_times_would(
        self, probes: ModuleType, most: int, period: int, steps: list[tuple[int, bool]]
    ) -> None:
        """Admitted while fewer than `most` of the admitted ones are younger than the period."""
        limiter = probes.Limiter(window=(most, period))
        admitted: list[int] = []
        now = 1000
        for step, _ in steps:
            now += step
            inside = [time for time in admitted if now - time < period]
            answer = limiter.open(now)
            assert (answer is None) == (len(inside) < most)
            if answer is None:
                admitted.append(now)
                limiter.close()
            else:
                assert answer[1:] == ("window", inside[-most] + period - now)
        assert most_in_any(admitted, period) <= most

    @given(
        most=st.integers(1, 5),
        period=st.integers(1, 50),
        steps=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=120),
    )
    def test_what_was_given_back_never_lets_more_through(
        self, probes: ModuleType, most: int, period: int, steps: list[tuple[int, bool]]
    ) -> None:
        limiter = probes.Limiter(window=(most, period))
        kept: list[int] = []
        now = 1000
        for step, later_refused in steps:
            now += step
            if limiter.open(now) is None:
                limiter.close()
                if later_refused:
                    limiter.refund()
                else:
                    kept.append(now)
        assert most_in_any(kept, period) <= most

    def test_a_refund_frees_the_place_at_once(self, probes: ModuleType) -> None:
        for most in (1, 2, 3):
            limiter = probes.Limiter(window=(most, SECOND))
            for _ in range(20 * most):
                assert limiter.open(5 * SECOND) is None
                limiter.refund()
                limiter.close()

    @pytest.mark.parametrize("most", [1, 2, 3, 50])
    @pytest.mark.parametrize("threads", [2, 4])
    def test_threads_never_pass_it_in_any_window(self, probes: ModuleType, most: int, threads: int) -> None:
        """On a running clock, with every thread's own idea of now."""
        period = 2000
        for _ in range(10):
            limiter = probes.Limiter(window=(most, period))
            times = race(
                probes, threads, lambda gate, one=limiter: one.hammer_times(gate, 20_000, 10**6, 37)
            )
            merged = [time for part in times for time in part]
            assert most_in_any(merged, period) <= most
            # ... and hardly less than that: the clock passes `span` in steps, each thread at its own pace
            span = 20_000 * 37
            assert len(merged) >= most * (span // period) * 0.5

    def test_threads_get_the_window_together_and_not_each(self, probes: ModuleType) -> None:
        for _ in range(50):
            limiter = probes.Limiter(window=(50, SECOND))
            results = race(probes, 4, lambda gate, one=limiter: one.hammer(gate, 50, 7 * SECOND, 0, False))
            assert sum(admitted for admitted, _ in results) == 50

    def test_an_outer_refusal_leaves_the_inner_window_as_it_was(self, probes: ModuleType) -> None:
        outer = probes.Limiter(open_max=1)
        inner = probes.Limiter(window=(3, SECOND), parent=outer)
        assert inner.open(SECOND) is None
        for _ in range(50):
            assert inner.open(SECOND)[0] is outer
        inner.close()
        assert [inner.open(SECOND) is None or inner.close() for _ in range(1)] == [True]

    def test_an_outer_window_refuses_before_the_inner_one_is_stamped(self, probes: ModuleType) -> None:
        outer = probes.Limiter(window=(2, SECOND))
        inner = probes.Limiter(window=(5, 10 * SECOND), parent=outer)
        now = SECOND
        admitted = 0
        for _ in range(5):
            for _ in range(10):
                admitted += inner.open(now) is None
            now += SECOND
        assert admitted == 5  # 2 + 2 + 1, and none lost to a refusal


class TestWaiting:
    """A delayed connection is judged as if it had been looked at all the time."""

    def test_tokens_that_came_while_it_waited_are_there_for_it(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(interval_ns=SECOND, burst=1, delays=True)
        assert limiter.open(10 * SECOND) is None
        asked = 10 * SECOND
        # Looked at 3.5 s late: three have come due, and only three.
        assert [limiter.open(13 * SECOND + SECOND // 2, asked) is None for _ in range(5)] == (
            [True] * 3 + [False] * 2
        )

    def test_only_where_the_scope_delays(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(interval_ns=SECOND, burst=1)
        assert limiter.open(10 * SECOND) is None
        assert [limiter.open(14 * SECOND, 10 * SECOND) is None for _ in range(3)] == [True, False, False]

    @given(seed=st.integers(0, 2**32), burst=st.integers(1, 5))
    def test_never_more_than_rate_and_burst(self, probes: ModuleType, seed: int, burst: int) -> None:
        chance = random.Random(seed)
        limiter = probes.Limiter(interval_ns=SECOND, burst=burst, delays=True)
        start = now = 100 * SECOND
        waiting = [start] * 20
        admitted = 0
        while now < start + 30 * SECOND and waiting:
            now += chance.randrange(3 * SECOND)
            while waiting and limiter.open(now, waiting[0]) is None:
                waiting.pop(0)
                admitted += 1
                assert admitted <= burst + (now - start) // SECOND


class TestBandwidth:
    @given(
        rate=st.integers(1, 10**10),
        steps=st.lists(st.tuples(st.integers(0, 10**8), st.integers(1, 10**6)), min_size=1, max_size=50),
    )
    def test_what_is_due_by_a_time_never_passes_rate_and_burst(
        self, probes: ModuleType, rate: int, steps: list[tuple[int, int]]
    ) -> None:
        account = probes.Bandwidth(rate)
        start = now = 10**12
        granted: list[tuple[int, int]] = []
        for step, amount in steps:
            now += step
            ready = account.reserve(amount, now)
            assert ready >= now
            granted.append((ready, amount))
        granted.sort()
        total = 0
        for ready, amount in granted:
            total += amount
            # A byte of rounding for the clock, and one for each conversion.
            assert total <= account.burst + rate * (ready - start) // 10**9 + 2 + rate // 10**9

    def test_what_was_not_used_can_be_returned(self, probes: ModuleType) -> None:
        account = probes.Bandwidth(8000)
        now = 10**12
        assert account.reserve(1000, now) == now  # the burst
        for _ in range(100):
            assert account.reserve(500, now) > now
            account.give_back(500)
        assert account.reserve(1000, now) == now + SECOND // 8

    def test_first_come_first_served(self, probes: ModuleType) -> None:
        account = probes.Bandwidth(1000)
        now = 10**12
        times = [account.reserve(500, now) for _ in range(10)]
        assert times == sorted(times)
        assert times[9] - times[8] == SECOND // 2

    def test_threads_share_one_account(self, probes: ModuleType) -> None:
        account = probes.Bandwidth(10**6)
        now = 10**12
        parts = race(probes, 4, lambda gate: account.reserve_many(gate, 10_000, 100, now))
        times = sorted(time for part in parts for time in part)
        late = [time for time in times if time > now]
        assert len(set(late)) == len(late)  # no two have the same turn
        assert times[-1] - now == (40_000 * 100 - account.burst) * 1000
