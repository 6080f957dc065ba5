"""The pick: the least loaded by weight, ties in turn, exact under races, passive health within bounds."""

from collections import Counter
from fractions import Fraction
from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st
from kit.racing import race

SECOND = 10**9

WEIGHTS = st.lists(st.integers(1, 65_535), min_size=1, max_size=12)


class TestPick:
    def test_ties_take_turns(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 4)
        firsts = []
        for _ in range(8):
            index = pool.pick()
            firsts.append(index)
            pool.give(index)
        assert Counter(firsts) == {0: 2, 1: 2, 2: 2, 3: 2}

    def test_who_picks_again_keeps_its_turn(self, probes: ModuleType) -> None:
        """With one of two dead, every other connection comes to the good one first."""
        pool = probes.Pool([(1, 0)] * 2)
        firsts = []
        for _ in range(6):
            turn = pool.turn()
            firsts.append(pool.pick(turn=turn))
            pool.give(firsts[-1])
            if firsts[-1] == 0:
                assert pool.pick(turn=turn, tried=[0]) == 1
                pool.give(1)
        assert Counter(firsts) == {0: 3, 1: 3}

    def test_the_least_loaded_is_next(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 3)
        for _ in range(9):
            pool.pick()
        pool.give(1)
        assert pool.pick() == 1
        assert pool.in_flight == [3, 3, 3]

    def test_weights_share_what_is_open(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (2, 0), (5, 0)])
        for _ in range(80):
            pool.pick()
        assert pool.in_flight == [10, 20, 50]

    def test_a_full_upstream_is_left_out(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 2), (1, 0)])
        for _ in range(10):
            pool.pick()
        assert pool.in_flight == [2, 8]

    def test_all_full_is_no_upstream(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 1), (1, 2)])
        assert None not in [pool.pick() for _ in range(3)]
        assert pool.pick() is None
        assert pool.in_flight == [1, 2]

    def test_an_upstream_that_failed_this_connection_is_not_tried_again(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 3)
        for _ in range(6):
            assert pool.pick(tried=[0, 2]) == 1
        assert pool.pick(tried=[0, 1, 2]) is None

    @given(weights=WEIGHTS, steps=st.lists(st.integers(-12, 12), max_size=60))
    def test_always_the_lowest_score(self, probes: ModuleType, weights: list[int], steps: list[int]) -> None:
        """(open + 1) / weight of the chosen one is the least there is, in exact fractions."""
        pool = probes.Pool([(weight, 0) for weight in weights])
        for step in steps:
            before = pool.in_flight
            given_back = -step - 1
            if step < 0 and given_back < len(weights) and before[given_back] > 0:
                pool.give(given_back)
                continue
            index = pool.pick()
            scores = [Fraction(level + 1, weight) for level, weight in zip(before, weights, strict=True)]
            assert scores[index] == min(scores)
            assert pool.in_flight[index] == before[index] + 1

    @given(weights=WEIGHTS, rounds=st.integers(1, 5))
    def test_a_whole_round_ends_at_the_weights(
        self, probes: ModuleType, weights: list[int], rounds: int
    ) -> None:
        small = [1 + weight % 20 for weight in weights]
        pool = probes.Pool([(weight, 0) for weight in small])
        for _ in range(rounds * sum(small)):
            pool.pick()
        assert pool.in_flight == [rounds * weight for weight in small]

    @given(
        caps=st.lists(st.integers(1, 5), min_size=1, max_size=8),
        tried=st.sets(st.integers(0, 7), max_size=8),
    )
    def test_caps_and_failures_hold_to_the_last(
        self, probes: ModuleType, caps: list[int], tried: set[int]
    ) -> None:
        pool = probes.Pool([(1, cap) for cap in caps])
        room = sum(cap for index, cap in enumerate(caps) if index not in tried)
        picked = [pool.pick(tried=sorted(tried)) for _ in range(room + 1)]
        assert picked[-1] is None
        assert None not in picked[:-1]
        assert pool.in_flight == [0 if index in tried else cap for index, cap in enumerate(caps)]


class TestRaces:
    def test_100_at_once_on_4_upstreams_end_25_each(self, probes: ModuleType) -> None:
        for _ in range(300):
            pool = probes.Pool([(1, 0)] * 4)
            race(probes, 4, lambda gate, pool=pool: pool.hammer(gate, 25, True))
            assert pool.in_flight == [25, 25, 25, 25]

    def test_weighted_races_end_at_the_weights(self, probes: ModuleType) -> None:
        for _ in range(100):
            pool = probes.Pool([(1, 0), (3, 0), (4, 0)])
            race(probes, 4, lambda gate, pool=pool: pool.hammer(gate, 200, True))
            assert pool.in_flight == [100, 300, 400]

    def test_caps_are_exact(self, probes: ModuleType) -> None:
        for _ in range(50):
            pool = probes.Pool([(1, 10), (1, 20), (1, 30)])
            found = race(probes, 4, lambda gate, pool=pool: pool.hammer(gate, 50, True))
            assert sum(count for count, _ in found) == 60
            assert pool.in_flight == [10, 20, 30]

    def test_what_is_given_back_leaves_nothing_behind(self, probes: ModuleType) -> None:
        """And while it comes and goes, no upstream is ever above its cap."""
        pool = probes.Pool([(1, 1), (2, 1), (3, 1)])
        found = race(probes, 4, lambda gate: pool.hammer(gate, 100_000, False))
        assert pool.in_flight == [0, 0, 0]
        assert sum(pool.picked) == sum(count for count, _ in found)
        assert max(highest for _, highest in found) == 1


class TestPassiveHealth:
    def test_failures_in_a_row_eject_for_a_while(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=3, eject_ns=10 * SECOND, ejected_max=1)
        pool.failed(0, 0)
        pool.failed(0, 0)
        assert pool.ejected(1) == []
        pool.failed(0, 0)
        assert pool.ejected(1) == [0]
        assert {pool.pick(now_ns=1) for _ in range(5)} == {1}
        assert pool.ejected(10 * SECOND) == []
        assert pool.pick(now_ns=10 * SECOND) == 0  # nothing is open on it
        assert pool.errors == [3, 0]

    def test_a_success_between_starts_the_count_again(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=2, eject_ns=SECOND, ejected_max=1)
        for _ in range(5):
            pool.failed(0, 0)
            pool.dialled(0)
        assert pool.ejected(1) == []

    def test_still_dead_after_its_time_one_more_failure_ejects_again(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=3, eject_ns=SECOND, ejected_max=1)
        for _ in range(3):
            pool.failed(0, 0)
        pool.failed(0, 2 * SECOND)
        assert pool.ejected(2 * SECOND + 1) == [0]

    def test_who_is_out_already_does_not_count_itself(self, probes: ModuleType) -> None:
        """A dial that was under way fails later: that upstream stays out longer."""
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=1, eject_ns=10 * SECOND, ejected_max=1)
        pool.failed(0, 0)
        pool.failed(0, 5 * SECOND)
        assert pool.ejected(12 * SECOND) == [0]

    def test_threads_never_pass_the_maximum_together(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 4, failures_max=1, eject_ns=5_000, ejected_max=1)
        indexes = iter(range(4))
        most = race(probes, 4, lambda gate: pool.fail_on(gate, next(indexes), 100_000))
        assert max(most) == 1
        later = pool.clock() + SECOND
        pool.failed(2, later)
        assert pool.ejected(later) == [2]

    def test_zero_failures_means_never(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=0, eject_ns=SECOND, ejected_max=2)
        for _ in range(100):
            pool.failed(0, 0)
        assert pool.ejected(1) == []

    def test_the_only_one_left_is_tried_rather_than_ejected(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=1, eject_ns=SECOND, ejected_max=1)
        pool.failed(0, 0)
        pool.failed(1, 0)
        assert pool.ejected(1) == [0]
        assert pool.pick(now_ns=1) == 1

    @given(
        count=st.integers(1, 10),
        most=st.integers(0, 10),
        failures=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3 * SECOND)), max_size=60),
    )
    def test_never_more_out_at_once_than_allowed(
        self, probes: ModuleType, count: int, most: int, failures: list[tuple[int, int]]
    ) -> None:
        pool = probes.Pool([(1, 0)] * count, failures_max=1, eject_ns=SECOND, ejected_max=most)
        now = 0
        for index, step in failures:
            now += step
            pool.failed(index % count, now)
            assert len(pool.ejected(now)) <= most
            if most < count:
                assert pool.pick(now_ns=now) is not None
