"""The timer wheel: never early, at most one slot late, and asleep when there is nothing to wait for."""

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

SLOT = 2**25  # nanoseconds, 33.6 ms
TURN = 4096 * SLOT
DAY = 86_400 * 10**9


def test_without_timers_the_worker_sleeps_for_ever(probes: ModuleType) -> None:
    assert probes.Wheel(1, 0).wait_ms(12345) == -1


def test_a_deadline_fires_at_its_slot_and_not_before(probes: ModuleType) -> None:
    wheel = probes.Wheel(1, 0)
    wheel.arm(0, 10**9)
    assert wheel.expired(10**9 - 1) == []
    assert wheel.expired(10**9 + SLOT) == [0]
    assert wheel.armed == 0
    assert wheel.wait_ms(10**9 + SLOT) == -1


def test_a_deadline_in_the_past_fires_within_one_slot(probes: ModuleType) -> None:
    now = 7 * 10**9
    wheel = probes.Wheel(1, now)
    wheel.arm(0, now - 5 * 10**9)
    assert wheel.wait_ms(now) <= SLOT // 10**6 + 1
    assert wheel.expired(now + SLOT) == [0]


def test_a_timer_that_was_disarmed_never_fires(probes: ModuleType) -> None:
    wheel = probes.Wheel(3, 0)
    for timer in range(3):
        wheel.arm(timer, 10**9)  # one slot, so one list
    wheel.disarm(1)
    wheel.disarm(1)  # harmless
    assert sorted(wheel.expired(DAY)) == [0, 2]
    assert wheel.armed == 0


def test_arming_again_replaces_the_deadline(probes: ModuleType) -> None:
    wheel = probes.Wheel(1, 0)
    wheel.arm(0, 10**9)
    wheel.arm(0, 3 * 10**9)
    assert wheel.armed == 1
    assert wheel.expired(2 * 10**9) == []
    wheel.arm(0, 10**9)  # to an earlier time, which has passed by now
    assert wheel.expired(2 * 10**9 + SLOT) == [0]


def test_deadlines_beyond_a_turn_wait_their_time(probes: ModuleType) -> None:
    wheel = probes.Wheel(2, 0)
    wheel.arm(0, 20 * TURN + 5)
    wheel.arm(1, TURN - SLOT)
    assert wheel.expired(TURN) == [1]
    for turn in range(2, 21):
        assert wheel.expired(turn * TURN) == []
    assert wheel.expired(20 * TURN + 5 + SLOT) == [0]


def test_one_look_after_a_long_sleep_finds_them_all(probes: ModuleType) -> None:
    wheel = probes.Wheel(100, 0)
    for timer in range(100):
        wheel.arm(timer, timer * TURN // 3)
    assert sorted(wheel.expired(DAY)) == list(range(100))


def test_a_distant_deadline_does_not_wake_the_worker_often(probes: ModuleType) -> None:
    """Half an hour of silence: one wake-up a turn, thirteen or so in all."""
    deadline = 1800 * 10**9
    wheel = probes.Wheel(1, 0)
    wheel.arm(0, deadline)
    now = 0
    wakeups = 0
    while wheel.armed:
        now += wheel.wait_ms(now) * 10**6
        wakeups += 1
        wheel.expired(now)
        assert wakeups < 20
    assert deadline <= now <= deadline + 2 * SLOT


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("arm"), st.integers(0, 7), st.integers(0, 3 * TURN)),
        st.tuples(st.just("disarm"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), st.integers(0, 2 * TURN)),
        st.tuples(st.just("pass"), st.just(0), st.integers(0, 3 * SLOT)),
    ),
    max_size=60,
)


@given(start=st.integers(0, 2**60), operations=OPERATIONS)
def test_like_a_plain_table_of_deadlines(
    probes: ModuleType, start: int, operations: list[tuple[str, int, int]]
) -> None:
    wheel = probes.Wheel(8, start)
    now = start
    deadlines: dict[int, int] = {}
    for what, timer, amount in operations:
        if what == "arm":
            wheel.arm(timer, now + amount)
            deadlines[timer] = now + amount
        elif what == "disarm":
            wheel.disarm(timer)
            deadlines.pop(timer, None)
        else:
            now += amount
            for fired in wheel.expired(now):
                assert deadlines.pop(fired) <= now, "early"
        late = [timer for timer, deadline in deadlines.items() if deadline + 2 * SLOT <= now]
        if what == "pass":
            assert not late
        assert wheel.armed == len(deadlines)


@given(start=st.integers(0, 2**60), delays=st.lists(st.integers(0, 3 * TURN), min_size=1, max_size=8))
def test_a_worker_that_sleeps_as_told_is_never_late(
    probes: ModuleType, start: int, delays: list[int]
) -> None:
    wheel = probes.Wheel(len(delays), start)
    now = start
    for timer, delay in enumerate(delays):
        wheel.arm(timer, start + delay)
    while wheel.armed:
        wait = wheel.wait_ms(now)
        assert wait >= 0
        now += wait * 10**6
        for fired in wheel.expired(now):
            assert start + delays[fired] <= now <= start + delays[fired] + SLOT + 2 * 10**6
