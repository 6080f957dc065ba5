"""Rings between threads: nothing lost, nothing twice, in order, bounded, and no wake-up missed."""

import select
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st


def woken(ring: object, seconds: float = 0.0) -> bool:
    """Whether the ring's descriptor is readable, now or within the time."""
    poll = select.poll()
    poll.register(ring.wake_fd, select.POLLIN)  # type: ignore[attr-defined]
    return bool(poll.poll(seconds * 1000))


def test_full_and_empty_are_answers(probes: ModuleType) -> None:
    ring = probes.Ring(4)
    assert ring.pop() is None
    assert [ring.push(i) for i in range(6)] == [True] * 4 + [False] * 2
    assert ring.dropped == 2
    assert [ring.pop() for _ in range(5)] == [0, 1, 2, 3, None]


@given(st.lists(st.booleans(), max_size=200))
def test_like_a_bounded_queue(probes: ModuleType, pushes: list[bool]) -> None:
    ring = probes.Ring(8)
    model: deque[int] = deque()
    for number, push in enumerate(pushes):
        if push:
            assert ring.push(number) == (len(model) < 8)
            if len(model) < 8:
                model.append(number)
        else:
            assert ring.pop() == (model.popleft() if model else None)


@pytest.mark.parametrize(("writers", "readers"), [(1, 1), (4, 1), (1, 4), (4, 4)])
def test_threads_lose_nothing_and_keep_each_writers_order(
    probes: ModuleType, writers: int, readers: int
) -> None:
    each = 20_000
    ring = probes.Ring(64)
    with ThreadPoolExecutor(writers + readers) as pool:
        read = [pool.submit(ring.read, writers * each) for _ in range(readers)]
        written = [pool.submit(ring.write, writer, each) for writer in range(writers)]
        for job in written:
            job.result(timeout=40)
        shares = [job.result(timeout=40) for job in read]
    assert sorted(item for share in shares for item in share) == [
        writer << 32 | i for writer in range(writers) for i in range(each)
    ]
    for share in shares:
        for writer in range(writers):
            mine = [item for item in share if item >> 32 == writer]
            assert mine == sorted(mine)


def test_a_writer_pays_for_a_wake_up_only_when_the_reader_sleeps(probes: ModuleType) -> None:
    ring = probes.Ring(4)
    ring.push(1)
    ring.wake()
    assert not woken(ring)
    assert ring.pop() == 1
    assert ring.may_sleep()
    ring.push(2)
    ring.wake()
    assert woken(ring)
    ring.awake()
    assert not woken(ring)
    ring.push(3)
    ring.wake()
    assert not woken(ring)


def test_a_reader_may_not_sleep_over_items(probes: ModuleType) -> None:
    ring = probes.Ring(4)
    ring.push(1)
    assert not ring.may_sleep()
    assert ring.pop() == 1
    assert ring.may_sleep()


def test_no_wake_up_is_lost_between_a_sleeper_and_a_writer(probes: ModuleType) -> None:
    """The reader goes to sleep after nearly every item; one missed wake-up would hang it for good."""
    total = 3_000
    ring = probes.Ring(16)
    seen: list[int] = []
    stuck: list[int] = []

    def read() -> None:
        while len(seen) < total:
            item = ring.pop()
            if item is not None:
                seen.append(item)
            elif ring.may_sleep():
                if not woken(ring, 10.0):
                    stuck.append(len(seen))
                    return
                ring.awake()

    reader = threading.Thread(target=read)
    reader.start()
    ring.write(0, total)
    reader.join(timeout=30)
    assert stuck == []
    assert not reader.is_alive()
    assert seen == list(range(total))
