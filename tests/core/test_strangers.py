"""The cap on unauthenticated connections: the oldest goes, the newcomer stays, and the count is right."""

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st


def test_the_oldest_is_evicted_for_the_newcomer(probes: ModuleType) -> None:
    worker = probes.Worker(unauthenticated_max=3)
    first, second, third, fourth = (worker.enter() for _ in range(4))
    assert worker.doomed() == [(first, "unauthenticated_full")]
    assert worker.strangers() == [second, third, fourth]
    assert worker.unauthenticated == 3


def test_who_has_authenticated_is_not_evicted(probes: ModuleType) -> None:
    worker = probes.Worker(unauthenticated_max=2)
    first, second = worker.enter(), worker.enter()
    worker.leave(first)
    third = worker.enter()
    assert worker.doomed() == []
    fourth = worker.enter()
    assert worker.doomed() == [(second, "unauthenticated_full")]
    assert worker.strangers() == [third, fourth]


def test_leaving_twice_is_counted_once(probes: ModuleType) -> None:
    worker = probes.Worker(unauthenticated_max=5)
    first, second = worker.enter(), worker.enter()
    worker.leave(first)
    worker.leave(first)
    assert worker.unauthenticated == 1
    assert worker.strangers() == [second]


@given(most=st.integers(1, 6), leavers=st.lists(st.none() | st.integers(0, 9), max_size=60))
def test_like_a_bounded_list(probes: ModuleType, most: int, leavers: list[int | None]) -> None:
    worker = probes.Worker(unauthenticated_max=most)
    model: list[int] = []
    for leaver in leavers:
        if leaver is None:
            model.append(worker.enter())
            if len(model) > most:
                assert worker.doomed() == [(model.pop(0), "unauthenticated_full")]
        elif leaver < len(model):
            worker.leave(model.pop(leaver))
        assert worker.doomed() == []
        assert worker.strangers() == model
        assert worker.unauthenticated == len(model)
