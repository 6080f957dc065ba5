"""Chunks: what the kernel would not take is kept in order, in a buffer that fits, and the pool is small."""

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

KIB = 1024
BATCH = 147_456
LARGEST = 229_376  # as much as a pipe may hold


@pytest.mark.parametrize(
    ("length", "room"),
    [
        (1, 9 * KIB),
        (9 * KIB, 9 * KIB),
        (9 * KIB + 1, 18 * KIB),
        (37 * KIB, 72 * KIB),
        (72 * KIB + 1, BATCH),
        (BATCH, BATCH),
        (BATCH + 1, LARGEST),
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


@pytest.mark.parametrize("length", [1, 10 * KIB, 20 * KIB, 40 * KIB, 80 * KIB, BATCH])
def test_the_rooms_of_two_directions_stay_under_the_bound(probes: ModuleType, length: int) -> None:
    """A direction reads what the other one's chunk leaves of 192 KiB, at most 128 KiB; decrypting can add
    the part of a record that came before, encrypting less."""
    one, other = probes.Outbox(), probes.Outbox()
    assert one.append(b"x" * length)
    read = min(128 * KIB, 192 * KIB - one.room)
    assert read >= 48 * KIB  # the other direction goes on
    assert other.append(b"x" * (read + 16 * KIB))
    assert one.room + other.room <= 216 * KIB


def test_what_was_in_a_pipe_leaves_room_for_a_smallest_batch(probes: ModuleType) -> None:
    one, other = probes.Outbox(), probes.Outbox()
    assert one.append(b"x" * (BATCH + 1))
    assert other.append(b"x" * 16 * KIB)
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
    outbox.append(b"a" * 9 * KIB)
    outbox.append(b"b")
    assert outbox.room == 18 * KIB
    assert outbox.kept == [1, 0, 0, 0, 0, 0]
    assert outbox.content() == b"a" * 9 * KIB + b"b"


def test_of_the_largest_few_are_kept_too(probes: ModuleType) -> None:
    outbox = probes.Outbox()
    outbox.append(b"x" * LARGEST)
    outbox.sent(LARGEST)
    assert outbox.kept == [0, 0, 0, 0, 0, 1]
    outbox.append(b"y" * LARGEST)
    assert outbox.kept == [0, 0, 0, 0, 0, 0]


def test_the_room_in_front_is_used_before_a_larger_chunk(probes: ModuleType) -> None:
    numbered = b"".join(number.to_bytes(2, "big") for number in range(13 * KIB // 2))
    outbox = probes.Outbox()
    outbox.append(numbered[: 9 * KIB])
    outbox.sent(5 * KIB)
    outbox.append(numbered[9 * KIB :])
    assert outbox.room == 9 * KIB
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
