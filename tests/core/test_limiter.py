"""Limits: exact caps under races, GCRA like a token bucket, and nothing consumed by a refusal."""

import time
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from kit.racing import at_once, race

import lbcore

SECOND = 10**9


class TestConcurrent:
    def test_up_to_the_cap_and_again_after_a_close(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(open_max=2)
        assert limiter.open(0) is None
        assert limiter.open(0) is None
        assert limiter.open(0) == (limiter, "open", 0)
        limiter.close()
        assert limiter.open(0) is None
        assert (limiter.opened, limiter.admitted, limiter.refused) == (2, 3, 1)

    def test_no_cap_counts_all_the_same(self, probes: ModuleType) -> None:
        limiter = probes.Limiter()
        assert [limiter.open(0) for _ in range(1000)] == [None] * 1000
        assert limiter.opened == 1000

    @pytest.mark.parametrize("threads", [2, 4, 8])
    def test_200_simultaneous_opens_against_50_admit_exactly_50(
        self, probes: ModuleType, threads: int
    ) -> None:
        each = 200 // threads
        for _ in range(50):
            limiter = probes.Limiter(open_max=50)
            results = race(probes, threads, lambda gate, one=limiter: one.hammer(gate, each, 0, 0, True))
            assert sum(admitted for admitted, _ in results) == 50
            assert limiter.opened == 50
            assert limiter.refused == 150

    def test_opens_and_closes_never_pass_the_cap_and_end_at_zero(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(open_max=3)
        results = race(probes, 4, lambda gate: limiter.hammer(gate, 50_000, 0, 0, False))
        assert max(highest for _, highest in results) <= 3
        assert limiter.opened == 0
        assert limiter.admitted == sum(admitted for admitted, _ in results)
        assert limiter.admitted + limiter.refused == 200_000


class TestRate:
    def test_burst_then_one_an_interval(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(interval_ns=SECOND, burst=3)
        now = 100 * SECOND
        assert [limiter.open(now) for _ in range(3)] == [None] * 3
        assert limiter.open(now) == (limiter, "rate", SECOND)
        assert limiter.open(now + SECOND - 1) == (limiter, "rate", 1)
        assert limiter.open(now + SECOND) is None
        assert limiter.open(now + SECOND) == (limiter, "rate", SECOND)

    def test_silence_earns_the_burst_and_no_more(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(interval_ns=SECOND, burst=5)
        for now in (10 * SECOND, 10**6 * SECOND):
            assert [limiter.open(now) is None for _ in range(7)] == [True] * 5 + [False] * 2

    def test_a_refused_open_holds_no_slot(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(open_max=10, interval_ns=SECOND, burst=1)
        assert limiter.open(0) is None
        for _ in range(20):
            assert limiter.open(0)[1] == "rate"
        assert limiter.opened == 1

    def test_a_refused_open_costs_no_token(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(open_max=1, interval_ns=SECOND, burst=2)
        assert limiter.open(0) is None
        for _ in range(20):
            assert limiter.open(0)[1] == "open"
        limiter.close()
        assert limiter.open(0) is None

    def test_a_refund_gives_the_token_back(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(interval_ns=SECOND, burst=1)
        for _ in range(10):
            assert limiter.open(5 * SECOND) is None
            limiter.refund()
            limiter.close()
        assert limiter.opened == 0

    def test_a_late_refund_admits_at_most_one_more(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(interval_ns=SECOND, burst=4)
        assert limiter.open(0) is None
        limiter.refund()  # the bucket would have been full by then
        assert sum(limiter.open(100 * SECOND) is None for _ in range(10)) == 4
        limiter.refund()
        assert sum(limiter.open(100 * SECOND) is None for _ in range(10)) == 1

    def test_threads_get_the_burst_together_and_not_each(self, probes: ModuleType) -> None:
        for _ in range(50):
            limiter = probes.Limiter(interval_ns=SECOND, burst=50)
            results = race(probes, 4, lambda gate, one=limiter: one.hammer(gate, 50, 7 * SECOND, 0, False))
            assert sum(admitted for admitted, _ in results) == 50
            assert limiter.opened == 0

    def test_threads_on_a_running_clock_never_pass_rate_and_burst(self, probes: ModuleType) -> None:
        interval, burst, attempts, step = 1000, 10, 40_000, 100
        limiter = probes.Limiter(interval_ns=interval, burst=burst)
        results = race(probes, 4, lambda gate: limiter.hammer(gate, attempts, SECOND, step, False))
        assert burst < sum(a for a, _ in results) <= burst + attempts * step // interval

    def test_refunds_under_races_leave_the_bucket_full(self, probes: ModuleType) -> None:
        limiter = probes.Limiter(open_max=4, interval_ns=SECOND, burst=4)
        race(probes, 4, lambda gate: limiter.take_back(gate, 20_000, 9 * SECOND))
        assert limiter.opened == 0
        assert [limiter.open(9 * SECOND) is None for _ in range(5)] == [True] * 4 + [False]


class TestScopes:
    def test_an_outer_refusal_gives_back_what_inner_scopes_took(self, probes: ModuleType) -> None:
        everybody = probes.Limiter(open_max=1)
        app = probes.Limiter(open_max=5, interval_ns=SECOND, burst=5, parent=everybody)
        client = probes.Limiter(open_max=5, interval_ns=SECOND, burst=2, parent=app)
        assert client.open(0) is None
        for _ in range(10):
            assert client.open(0) == (everybody, "open", 0)
        assert [scope.opened for scope in (client, app, everybody)] == [1, 1, 1]
        client.close()
        assert client.open(0) is None  # the client's second token is still there
        client.close()
        assert client.open(0) == (client, "rate", SECOND)

    def test_an_outer_rate_costs_inner_scopes_nothing(self, probes: ModuleType) -> None:
        app = probes.Limiter(interval_ns=SECOND, burst=1)
        client = probes.Limiter(open_max=9, interval_ns=SECOND, burst=3, parent=app)
        assert client.open(0) is None
        before = client.next_ns
        assert client.open(0) == (app, "rate", SECOND)
        assert client.next_ns == before
        assert client.opened == 1

    def test_clients_share_what_is_around_them(self, probes: ModuleType) -> None:
        app = probes.Limiter(open_max=50)
        clients = [probes.Limiter(open_max=30, parent=app) for _ in range(4)]
        jobs = iter(clients)
        results = race(probes, 4, lambda gate: next(jobs).hammer(gate, 100, 0, 0, True))
        assert sum(admitted for admitted, _ in results) == 50
        assert app.opened == 50
        assert sum(client.opened for client in clients) == 50

    def test_a_token_lost_to_another_thread_gives_the_inner_ones_back(self, probes: ModuleType) -> None:
        """Both saw the last token of the outer scope, one got it: the other's inner token comes back."""
        now = 7 * SECOND
        app = probes.Limiter(interval_ns=SECOND, burst=1)
        client = probes.Limiter(interval_ns=SECOND, burst=10**6, parent=app)
        for _ in range(50):  # threads that ran one after the other have not raced
            race(probes, 4, lambda gate: client.take_back(gate, 100_000, now))
            if app.refused:
                break
        assert app.refused > 0
        assert client.next_ns == app.next_ns == now
        assert (client.opened, app.opened) == (0, 0)

    def test_each_refusal_is_counted_where_it_happened(self, probes: ModuleType) -> None:
        app = probes.Limiter(open_max=1)
        client = probes.Limiter(open_max=5, parent=app)
        client.open(0)
        client.open(0)
        assert (client.refused, app.refused) == (0, 1)
        assert (client.admitted, app.admitted) == (1, 1)


@given(
    interval=st.integers(1, 10**7),
    burst=st.integers(1, 20),
    start=st.integers(0, 2**50),
    steps=st.lists(st.integers(0, 5 * 10**7), min_size=1, max_size=80),
)
def test_gcra_admits_what_a_token_bucket_admits(
    probes: ModuleType, interval: int, burst: int, start: int, steps: list[int]
) -> None:
    """A bucket of `burst` tokens that refills one an interval, counted in token-nanoseconds."""
    limiter = probes.Limiter(interval_ns=interval, burst=burst)
    level = burst * interval
    now = start
    for step in steps:
        now += step
        level = min(burst * interval, level + step)
        refusal = limiter.open(now)
        if level >= interval:
            assert refusal is None
            level -= interval
        else:
            assert refusal == (limiter, "rate", interval - level)


class Chain(RuleBasedStateMachine):
    """Client inside application inside global against the plainest model: lists of what is open."""

    probes: ModuleType
    held = Bundle("held")

    @initialize(
        caps=st.tuples(*[st.integers(0, 4)] * 3),
        intervals=st.tuples(*[st.sampled_from([0, 3, 10, 1000])] * 3),
        bursts=st.tuples(*[st.integers(1, 4)] * 3),
    )
    def build(
        self, caps: tuple[int, int, int], intervals: tuple[int, int, int], bursts: tuple[int, int, int]
    ) -> None:
        self.caps, self.intervals, self.bursts = caps, intervals, bursts
        scope = None
        scopes = []
        for cap, interval, burst in zip(caps, intervals, bursts, strict=True):
            scope = self.probes.Limiter(open_max=cap, interval_ns=interval, burst=burst, parent=scope)
            scopes.append(scope)
        self.scopes = scopes  # global, application, client
        self.levels = [burst * interval for burst, interval in zip(bursts, intervals, strict=True)]
        self.now = 10**6
        self.opened = 0

    @rule(step=st.integers(0, 2000))
    def pass_time(self, step: int) -> None:
        self.now += step
        full = zip(self.levels, self.bursts, self.intervals, strict=True)
        self.levels = [min(level + step, burst * interval) for level, burst, interval in full]

    @rule(target=held)
    def open(self) -> bool:
        expected = self.refused_by()
        refusal = self.scopes[2].open(self.now)
        if expected is not None:
            assert refusal is not None
            assert (refusal[0], refusal[1]) == (self.scopes[expected[0]], expected[1])
            return False
        assert refusal is None
        self.opened += 1
        self.levels = [level - interval for level, interval in zip(self.levels, self.intervals, strict=True)]
        return True

    def refused_by(self) -> tuple[int, str] | None:
        for scope in (2, 1, 0):
            if self.caps[scope] and self.opened >= self.caps[scope]:
                return scope, "open"
        for scope in (2, 1, 0):
            if self.intervals[scope] and self.levels[scope] < self.intervals[scope]:
                return scope, "rate"
        return None

    @rule(admitted=consumes(held))
    def close(self, admitted: bool) -> None:
        if admitted:
            self.scopes[2].close()
            self.opened -= 1

    @invariant()
    def every_scope_counts_the_same(self) -> None:
        if hasattr(self, "scopes"):
            assert [scope.opened for scope in self.scopes] == [self.opened] * 3


def test_a_chain_of_scopes_like_its_model(probes: ModuleType) -> None:
    machine = type("Chain", (Chain,), {"probes": probes})
    machine.TestCase().runTest()


class TestManager:
    """The same limiter as embedders see it."""

    def test_admission_says_who_refused_and_how_long_to_wait(self) -> None:
        manager = lbcore.RateLimitManager("tenant", max_open=1)
        assert manager.connection_opened()
        refused = manager.connection_opened()
        assert not refused
        assert (refused.scope, refused.limit, refused.wait) == ("client", "concurrent", 0.0)
        assert (manager.open, manager.admitted, manager.refused) == (1, 1, 1)

    def test_rate_on_the_real_clock(self) -> None:
        manager = lbcore.RateLimitManager("tenant", rate=20.0, burst=1)
        assert manager.connection_opened()
        refused = manager.connection_opened()
        assert (refused.allowed, refused.limit) == (False, "rate")
        assert 0 < refused.wait <= 0.05
        deadline = time.monotonic() + 5
        while not manager.connection_opened():
            assert time.monotonic() < deadline

    def test_closing_what_is_not_open_is_a_misuse(self) -> None:
        manager = lbcore.RateLimitManager("tenant")
        with pytest.raises(RuntimeError, match="'tenant'"):
            manager.connection_closed()
        assert manager.open == 0

    def test_many_threads_and_one_cap(self) -> None:
        manager = lbcore.RateLimitManager("tenant", max_open=50)
        results = at_once(8, lambda: [bool(manager.connection_opened()) for _ in range(25)])
        assert sum(map(sum, results)) == 50

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            ({"max_open": 0}, "max_open"),
            ({"max_open": 2**31}, "max_open"),
            ({"rate": 0}, "rate"),
            ({"rate": float("nan")}, "rate"),
            ({"rate": 1e7}, "rate"),
            ({"burst": 5}, "burst"),
            ({"rate": 1, "burst": 0}, "burst"),
            ({"rate": 1e-6, "burst": 2**31 - 1}, "burst"),
        ],
    )
    def test_limits_that_make_no_sense(self, arguments: dict[str, float], named: str) -> None:
        with pytest.raises(ValueError, match=f"^{named}"):
            lbcore.RateLimitManager("tenant", **arguments)
        with pytest.raises(ValueError, match=f"^{named}"):
            lbcore.LimitClass(**arguments)

    @pytest.mark.parametrize("name", ["max_open", "burst"])
    @pytest.mark.parametrize("value", [True, 1.5, "3"])
    def test_counts_are_whole_numbers(self, name: str, value: object) -> None:
        with pytest.raises(TypeError, match=f"^{name}"):
            lbcore.LimitClass(rate=1.0, **{name: value})  # type: ignore[arg-type]
