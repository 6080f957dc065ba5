"""The slab: slots are reused under a new generation, so a stale event finds nothing."""

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st


def test_slots_are_handed_out_up_to_the_bound(probes: ModuleType) -> None:
    slab = probes.Slab(256)
    taken = [slab.take() for _ in range(256)]
    assert [index for index, _ in taken] == list(range(256))
    assert slab.take() is None
    assert slab.in_use == 256


def test_room_grows_by_whole_blocks(probes: ModuleType) -> None:
    slab = probes.Slab(257)
    taken = [slab.take() for _ in range(512)]
    assert None not in taken
    assert slab.take() is None


def test_a_slot_given_back_has_another_generation(probes: ModuleType) -> None:
    slab = probes.Slab(1)
    index, first = slab.take()
    slab.give(index)
    assert not slab.find(index, first)
    again, second = slab.take()
    assert again == index
    assert second != first
    assert slab.find(index, second)
    assert not slab.find(index, first)


def test_a_reused_slot_holds_nothing_of_its_earlier_life(probes: ModuleType) -> None:
    slab = probes.Slab(1)
    index, _ = slab.take()
    slab.scribble(index)
    assert not slab.is_fresh(index)
    slab.give(index)
    slab.take()
    assert slab.is_fresh(index)


def test_an_index_never_handed_out_is_not_found(probes: ModuleType) -> None:
    slab = probes.Slab(1024)
    slab.take()
    assert not slab.find(1, 1)
    assert not slab.find(2**32 - 1, 1)


@given(st.lists(st.booleans(), max_size=400))
def test_every_event_finds_its_own_connection_or_none(probes: ModuleType, takes: list[bool]) -> None:
    slab = probes.Slab(64)
    living: list[tuple[int, int]] = []
    dead: list[tuple[int, int]] = []
    for take in takes:
        if take or not living:
            fresh = slab.take()
            if fresh is None:
                assert len(living) == 256  # a whole block
            else:
                living.append(fresh)
        else:
            gone = living.pop(0)
            slab.give(gone[0])
            dead.append(gone)
        assert slab.in_use == len(living)
    assert all(slab.find(*key) for key in living)
    assert not any(slab.find(*key) for key in dead)
