"""The pick: the least loaded by weight, ties in turn, exact under races, passive health within bounds."""

from collections import Counter
from fractions import Fraction
from types import ModuleType
from typing import Any

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


class TestSlowStart:
    def test_a_newcomer_does_not_get_everybody(self, probes: ModuleType) -> None:
        """With a count of zero it would, until it has as many as the others."""
        pool = probes.Pool([(1, 0)] * 3, slow_start_ns=100 * SECOND)
        for _ in range(96):
            pool.pick(now_ns=SECOND, tried=[2])
        pool.flag(2, "down", True)
        pool.passed(2, 2 * SECOND)
        for _ in range(30):
            pool.pick(now_ns=2 * SECOND)
        assert pool.in_flight[2] <= 8
        for _ in range(30):
            pool.pick(now_ns=52 * SECOND)
        assert 25 <= pool.in_flight[2] <= 35
        for _ in range(60):
            pool.pick(now_ns=103 * SECOND)
        assert pool.in_flight == [72, 72, 72]

    def test_it_is_off_by_default(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 2)
        for _ in range(10):
            pool.pick(tried=[1])
        pool.flag(1, "down", True)
        pool.passed(1, SECOND)
        assert [pool.pick(now_ns=SECOND) for _ in range(10)] == [1] * 10


class TestByClient:
    def test_a_client_comes_to_the_same_one(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 5)
        for client in (b"alice", b"bob", b"carol"):
            assert len({pool.pick_or_probe(client=client) for _ in range(20)}) == 1

    def test_clients_are_shared_by_weight(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (2, 0), (5, 0)])
        for number in range(8000):
            pool.pick_or_probe(client=b"client-%d" % number)
        for share, weight in zip(pool.in_flight, (1, 2, 5), strict=True):
            assert 0.9 * 1000 * weight < share < 1.1 * 1000 * weight

    def test_who_goes_takes_nobody_elses_clients_along(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 5)
        clients = [b"client-%d" % number for number in range(500)]
        before = {client: pool.pick_or_probe(client=client)[0] for client in clients}
        pool.flag(3, "draining", True)
        after = {client: pool.pick_or_probe(client=client)[0] for client in clients}
        assert all(after[client] == before[client] for client in clients if before[client] != 3)
        spread = Counter(after[client] for client in clients if before[client] == 3)
        assert sorted(spread) == [0, 1, 2, 4]
        pool.flag(3, "draining", False)
        assert before == {client: pool.pick_or_probe(client=client)[0] for client in clients}

    def test_a_full_one_leaves_them_to_their_second(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 2)] * 3)
        picked = [pool.pick_or_probe(client=b"alice") for _ in range(7)]
        assert picked[-1] is None
        assert pool.in_flight == [2, 2, 2]
        firsts = [choice[0] for choice in picked[:-1]]
        assert firsts[0] == firsts[1] != firsts[2] == firsts[3] != firsts[4] == firsts[5]


class TestPassiveHealth:
    def test_failures_in_a_row_put_it_out_for_a_while(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=3, quarantine_ns=10 * SECOND, quarantined_max=1)
        pool.failed(0, 0)
        pool.failed(0, 0)
        assert pool.quarantined(1) == []
        pool.failed(0, 0)
        assert pool.quarantined(1) == [0]
        assert {pool.pick(now_ns=1) for _ in range(5)} == {1}
        assert pool.errors == [3, 0]

    def test_a_success_between_starts_the_count_again(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=2, quarantine_ns=SECOND, quarantined_max=1)
        for _ in range(5):
            pool.failed(0, 0)
            pool.dialled(0)
        assert pool.quarantined(1) == []

    def test_resets_without_a_byte_count_as_well(self, probes: ModuleType) -> None:
        """A dial that succeeds is no sign of health for them; a byte is."""
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=3, quarantine_ns=SECOND, quarantined_max=1)
        for _ in range(5):
            for _ in range(2):
                pool.dialled(0)
                pool.was_reset(0, 0)
            pool.had_bytes(0)
        assert pool.quarantined(1) == []
        for _ in range(3):
            pool.dialled(0)
            pool.was_reset(0, 0)
        assert pool.quarantined(1) == [0]

    def test_one_connection_finds_out_whether_it_is_back(self, probes: ModuleType) -> None:
        """Not all that have waited for it."""
        pool = quarantined(probes)
        after = pool.until_ns(0)
        for _ in range(3):
            pool.pick(now_ns=after)
        assert pool.in_flight == [1, 2]  # nothing is open on it, and still
        assert pool.pick_or_probe(after, tried=[1]) is None

    def test_if_it_is_everybody_may_come(self, probes: ModuleType) -> None:
        pool = quarantined(probes)
        after = pool.until_ns(0)
        assert pool.pick_or_probe(after) == (0, True)
        pool.dialled(0, after)
        assert [pool.pick_or_probe(after, tried=[1]) for _ in range(5)] == [(0, False)] * 5

    def test_if_it_is_not_it_stays_out_for_longer(self, probes: ModuleType) -> None:
        pool = quarantined(probes)
        lengths, now = [], 0
        for _ in range(8):
            lengths.append((pool.until_ns(0) - now) / SECOND)
            now = pool.until_ns(0)
            assert pool.pick_or_probe(now, tried=[1]) == (0, True)
            pool.failed(0, now, probing=True)
        for expected, length in zip((1, 2, 4, 8, 16, 32, 32, 32), lengths, strict=True):
            assert expected <= length <= 1.25 * expected

    def test_lengths_differ_by_chance(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 8, failures_max=1, quarantine_ns=100 * SECOND, quarantined_max=8)
        for index in range(8):
            pool.failed(index, SECOND)
        assert len({pool.until_ns(index) for index in range(8)}) > 4

    def test_who_was_fine_for_as_long_begins_anew(self, probes: ModuleType) -> None:
        pool = quarantined(probes)
        now = pool.until_ns(0)
        pool.failed(0, now, probing=True)
        now = pool.until_ns(0)
        pool.dialled(0, now)
        pool.failed(0, now + SECOND)
        assert pool.until_ns(0) - (now + SECOND) >= 4 * SECOND  # too soon: it has not been fine for long
        now = pool.until_ns(0)
        pool.dialled(0, now)
        pool.failed(0, now + 9 * SECOND)
        assert pool.until_ns(0) - (now + 9 * SECOND) <= 1.25 * SECOND

    def test_a_probe_that_never_knew_leaves_it_to_the_next_one(self, probes: ModuleType) -> None:
        pool = quarantined(probes)
        after = pool.until_ns(0)
        assert pool.pick_or_probe(after, tried=[1]) == (0, True)
        pool.gave_up(0, after)
        assert pool.pick_or_probe(after, tried=[1]) == (0, True)

    def test_a_probe_that_is_lost_does_not_lock_it_out(self, probes: ModuleType) -> None:
        pool = quarantined(probes)
        after = pool.until_ns(0)
        assert pool.pick_or_probe(after, tried=[1]) == (0, True)
        assert pool.pick_or_probe(after + 2 * SECOND - 1, tried=[1]) is None
        assert pool.pick_or_probe(after + 2 * SECOND, tried=[1]) == (0, True)

    def test_a_dial_from_before_changes_nothing(self, probes: ModuleType) -> None:
        """It began while the upstream was in the pool."""
        pool = quarantined(probes)
        until = pool.until_ns(0)
        pool.failed(0, 0)
        assert pool.until_ns(0) == until

    def test_a_passed_check_ends_it_and_its_history(self, probes: ModuleType) -> None:
        pool = quarantined(probes)
        for _ in range(3):
            pool.failed(0, pool.until_ns(0), probing=True)
        now = pool.until_ns(0) - 1
        pool.passed(0, now)
        assert pool.pick_or_probe(now, tried=[1]) == (0, False)
        pool.failed(0, now)
        assert pool.until_ns(0) - now <= 1.25 * SECOND

    def test_threads_never_pass_the_maximum_together(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 4, failures_max=1, quarantine_ns=5_000, quarantined_max=1)
        indexes = iter(range(4))
        most = race(probes, 4, lambda gate: pool.fail_on(gate, next(indexes), 100_000))
        assert max(most) == 1

    def test_zero_failures_means_never(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=0, quarantine_ns=SECOND, quarantined_max=2)
        for _ in range(100):
            pool.failed(0, 0)
            pool.was_reset(0, 0)
        assert pool.quarantined(1) == []

    def test_the_only_one_left_is_tried_rather_than_put_out(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0), (1, 0)], failures_max=1, quarantine_ns=SECOND, quarantined_max=1)
        pool.failed(0, 0)
        pool.failed(1, 0)
        assert pool.quarantined(1) == [0]
        assert pool.pick(now_ns=1) == 1

    @given(
        count=st.integers(1, 10),
        most=st.integers(0, 10),
        failures=st.lists(
            st.tuples(st.integers(0, 9), st.integers(0, 3 * SECOND), st.booleans()), max_size=60
        ),
    )
    def test_never_more_out_at_once_than_allowed(
        self, probes: ModuleType, count: int, most: int, failures: list[tuple[int, int, bool]]
    ) -> None:
        pool = probes.Pool([(1, 0)] * count, failures_max=1, quarantine_ns=SECOND, quarantined_max=most)
        now = 0
        for index, step, succeeds in failures:
            now += step
            if succeeds:
                pool.dialled(index % count, now)
            else:
                pool.failed(index % count, now)
            assert len(pool.quarantined(now)) <= most
            if most < count:
                assert pool.pick(now_ns=now) is not None


class TestFlags:
    def test_nobody_new_for_who_drains_or_is_down(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 3)
        pool.flag(0, "draining", True)
        pool.flag(1, "down", True)
        assert {pool.pick() for _ in range(5)} == {2}
        pool.flag(2, "down", True)
        assert pool.pick() is None

    def test_a_passed_check_does_not_end_a_drain(self, probes: ModuleType) -> None:
        pool = probes.Pool([(1, 0)] * 2)
        pool.flag(0, "draining", True)
        pool.flag(0, "down", True)
        pool.passed(0, SECOND)
        assert {pool.pick(now_ns=SECOND) for _ in range(5)} == {1}
        pool.flag(0, "draining", False)
        assert pool.pick(now_ns=SECOND) == 0


def quarantined(probes: ModuleType) -> Any:
    """Two upstreams, the first of them out since time 0, for a second."""
    pool = probes.Pool(
        [(1, 0)] * 2, failures_max=1, quarantine_ns=SECOND, quarantined_max=1, connect_timeout_ns=SECOND
    )
    pool.failed(0, 0)
    return pool
