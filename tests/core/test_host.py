"""What the descriptor limit has room for: connections and strangers, never more together than there are."""

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbcore import host

PIPES, WORKERS = 10, 2
TAKEN = host.DESCRIPTORS_KEPT + 2 * PIPES + 4 * WORKERS


def room(hard: int, connections: int, strangers: int) -> host.Room:
    """With a hard limit that nobody has to set."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resource, "getrlimit", lambda _: (hard, hard))
        return host.room_for(connections, strangers, workers=WORKERS, pipes=PIPES)


def test_as_many_as_there_is_room_for() -> None:
    assert room(TAKEN + 20_000, 0, 4096) == ((20_000 - 4096) // 2, 4096)


def test_few_descriptors_are_divided() -> None:
    assert room(1024, 0, 4096) == ((1024 - TAKEN - 217) // 2, 217)


def test_strangers_get_what_is_left() -> None:
    assert room(1024, 400, 4096) == (400, 1024 - TAKEN - 800)


def test_a_limit_that_is_none() -> None:
    assert room(resource.RLIM_INFINITY, 0, 4096) == (host.CONNECTIONS_MAX, 4096)
    assert room(resource.RLIM_INFINITY, 10, 2**31 - 1) == (10, host.CONNECTIONS_MAX)


def test_too_many_are_refused_with_how_many_there_may_be() -> None:
    with pytest.raises(ValueError, match=r"max_connections: 500 need more .* at most 402"):
        room(1024, 500, 4096)
    with pytest.raises(ValueError, match="leaves no room"):
        room(TAKEN + 2, 0, 4096)


@given(
    hard=st.integers(TAKEN + 3, 1 << 24),
    connections=st.integers(0, host.CONNECTIONS_MAX),
    strangers=st.integers(1, 1 << 20),
)
def test_never_more_than_there_are(hard: int, connections: int, strangers: int) -> None:
    try:
        found = room(hard, connections, strangers)
    except ValueError:
        assert 2 * max(connections, 1) + min(strangers, host.STRANGERS_LEAST) > hard - TAKEN
        return
    assert 2 * found.connections + found.strangers <= hard - TAKEN
    assert found.connections == connections or (connections == 0 < found.connections)
    assert min(strangers, host.STRANGERS_LEAST) <= found.strangers <= strangers
