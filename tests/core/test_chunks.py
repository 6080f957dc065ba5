"""Chunks: what the kernel would not take is kept in order, in a buffer that fits, and the pool is small."""

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

KIB = 1024
LARGEST = 208 * KIB


@pytest.mark.parametrize(
    ("length", "room"),
    [
        (1, LARGEST // 32),
        (LARGEST // 32, LARGEST // 32),
        (LARGEST // 32 + 1, 13 * KIB),
        (27 * KIB, 52 * KIB),
        (52 * KIB + 1, 104 * KIB),
        (104 * KIB + 1, LARGEST),
        (LARGEST, LARGEST),
    ],
)
def test_the_smallest_class_that_fits(probes: ModuleType, length: int, room: int) -> None:
    outbox = probes.Outbox()
    assert outbox.append(b"x" * length)
    assert outbox.room == room


def test_more_than_the_largest_class_is_refused_and_nothing_is_lost(probes: ModuleType) -> None:
    outbox = probes.Outbox()
    assert not outbox.append(b"x" * (LARGEST + 1))
    assert outbox.content() == b""
    assert outbox.append(b"kept")
    assert not outbox.append(b"x" * LARGEST)
    assert outbox.content() == b"kept"


@pytest.mark.parametrize(
    ("length", "beside"),
    [
        (0, LARGEST),
        (1, LARGEST),
        (26 * KIB, LARGEST),
        (26 * KIB + 1, 104 * KIB),
        (104 * KIB, 104 * KIB),
        (104 * KIB + 1, 26 * KIB),
        (LARGEST, 26 * KIB),
    ],
)
def test_the_rooms_of_two_directions_stay_under_the_bound(
    probes: ModuleType, length: int, beside: int
) -> None:
    one, other = probes.Outbox(), probes.Outbox()
    assert one.append(b"x" * length)
    assert one.room_beside == beside
    assert other.append(b"x" * beside)
    assert other.room == beside
    assert one.room + other.room < 256 * KIB


def test_nothing_appended_costs_no_chunk(probes: ModuleType) -> None:
    outbox = probes.Outbox()
    assert outbox.append(b"")
    assert outbox.room == 0


def test_an_emptied_chunk_is_reused(probes: ModuleType) -> None:
    outbox = probes.Outbox()
    outbox.append(b"x" * 100)
    outbox.sent(100)
    assert outbox.kept == [1, 0, 0, 0, 0, 0]
    outbox.append(b"y")
    assert outbox.kept == [0, 0, 0, 0, 0, 0]
    assert outbox.content() == b"y"


def test_growing_gives_the_smaller_chunk_back(probes: ModuleType) -> None:
    outbox = probes.Outbox()
    outbox.append(b"a" * 13 * KIB)
    outbox.append(b"b")
    assert outbox.room == 26 * KIB
    assert outbox.kept == [0, 1, 0, 0, 0, 0]
    assert outbox.content() == b"a" * 13 * KIB + b"b"


def test_of_the_largest_few_are_kept_too(probes: ModuleType) -> None:
    outbox = probes.Outbox()
    outbox.append(b"x" * LARGEST)
    outbox.sent(LARGEST)
    assert outbox.kept == [0, 0, 0, 0, 0, 1]
    outbox.append(b"y" * LARGEST)
    assert outbox.kept == [0, 0, 0, 0, 0, 0]


def test_the_room_in_front_is_used_before_a_larger_chunk(probes: ModuleType) -> None:
    numbered = b"".join(number.to_bytes(2, "big") for number in range(17 * KIB // 2))
    outbox = probes.Outbox()
    outbox.append(numbered[: 13 * KIB])
    outbox.sent(5 * KIB)
    outbox.append(numbered[13 * KIB :])
    assert outbox.room == 13 * KIB
    assert outbox.content() == numbered[5 * KIB :]


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 40), st.floats(0, 1)), max_size=40))
def test_like_a_byte_queue(probes: ModuleType, steps: list[tuple[bytes, int, float]]) -> None:
    outbox = probes.Outbox()
    model = b""
    for piece, times, share in steps:
        data = piece * times
        took = outbox.append(data)
        assert took == (len(model) + len(data) <= LARGEST or data == b"")
        if took:
            model += data
        assert outbox.content() == model
        if model:
            count = int(len(model) * share)
            outbox.sent(count)
            model = model[count:]
    assert outbox.content() == model
    assert all(kept <= 16 for kept in outbox.kept)
