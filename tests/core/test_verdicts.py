"""The verdict cache: an answer is found for exactly what was asked, while it lasts; never more than fits."""

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

KEY = b"a leaf certificate, as DER"


def test_found_for_exactly_what_was_asked(probes: ModuleType) -> None:
    cache = probes.Verdicts()
    cache.insert(1, 2, KEY, "alice")
    assert cache.find(1, 2, KEY) == "alice"
    assert cache.find(9, 2, KEY) is None, "another listener"
    assert cache.find(1, 9, KEY) is None, "another CA"
    assert cache.find(1, 2, KEY + b".") is None
    assert cache.find(1, 2, KEY[:-1]) is None


def test_nothing_is_found_before_the_first_answer(probes: ModuleType) -> None:
    assert probes.Verdicts().find(1, 2, KEY) is None


def test_an_answer_of_another_epoch_is_not_found(probes: ModuleType) -> None:
    cache = probes.Verdicts()
    cache.at(now_ns=0, epoch=3)
    cache.insert(1, 2, KEY, "alice", epoch=3)
    assert cache.find(1, 2, KEY) == "alice"
    cache.at(now_ns=0, epoch=4)
    assert cache.find(1, 2, KEY) is None


def test_an_answer_expires_at_its_time(probes: ModuleType) -> None:
    cache = probes.Verdicts()
    cache.insert(1, 2, KEY, "alice", expires_ns=1000)
    cache.at(now_ns=999, epoch=0)
    assert cache.find(1, 2, KEY) == "alice"
    cache.at(now_ns=1000, epoch=0)
    assert cache.find(1, 2, KEY) is None


def test_the_newer_answer_replaces_the_older(probes: ModuleType) -> None:
    cache = probes.Verdicts()
    cache.insert(1, 2, KEY, "alice")
    cache.insert(1, 2, KEY, "bob")
    assert cache.find(1, 2, KEY) == "bob"


@pytest.mark.parametrize("change", ["epoch", "tls"])
def test_a_stale_answer_does_not_hide_the_current_one(probes: ModuleType, change: str) -> None:
    cache = probes.Verdicts()
    cache.insert(1, 2, KEY, "old")
    if change == "epoch":
        cache.at(now_ns=0, epoch=1)
        cache.insert(1, 2, KEY, "new", epoch=1)
        assert cache.find(1, 2, KEY) == "new"
    else:
        cache.insert(1, 3, KEY, "new")
        assert cache.find(1, 3, KEY) == "new"


def test_an_answer_pushed_aside_and_given_again_is_the_new_one(probes: ModuleType) -> None:
    """A set has two places. The first answer moves to the second one when another key comes, and must not
    be found there once it was answered anew."""
    cache = probes.Verdicts()
    mine, other = same_set(probes)
    cache.insert(0, 0, mine, "first")
    cache.insert(0, 0, other, "other")
    cache.insert(0, 0, mine, "second")
    assert cache.find(0, 0, mine) == "second"


def test_a_set_keeps_the_two_newest(probes: ModuleType) -> None:
    cache = probes.Verdicts()
    first, second, third = same_set(probes, 3)
    for key in (first, second, third):
        cache.insert(0, 0, key, "x")
    assert [cache.find(0, 0, key) for key in (first, second, third)] == [None, "x", "x"]


def test_cleared_is_empty(probes: ModuleType) -> None:
    cache = probes.Verdicts()
    cache.insert(1, 2, KEY, "alice")
    cache.clear()
    assert cache.find(1, 2, KEY) is None


def test_the_table_stays_within_its_bound(probes: ModuleType) -> None:
    cache = probes.Verdicts()
    keys = [f"certificate {i}".encode() for i in range(30_000)]
    for key in keys:
        cache.insert(1, 1, key, key.decode())
    found = [key for key in keys if cache.find(1, 1, key) is not None]
    assert all(cache.find(1, 1, key) == key.decode() for key in found)
    assert 4_000 < len(found) <= 8_192
    assert cache.find(1, 1, keys[-1]) is not None


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 1), st.binary(min_size=1, max_size=9), st.integers(0, 3)),
        max_size=40,
    )
)
def test_never_a_wrong_answer(probes: ModuleType, inserts: list[tuple[int, int, bytes, int]]) -> None:
    """Losing an answer costs a question; what is found is the last one given in this epoch."""
    cache = probes.Verdicts()
    cache.at(now_ns=0, epoch=2)
    last: dict[tuple[int, int, bytes], str] = {}
    for number, (listener, tls, key, epoch) in enumerate(inserts):
        cache.insert(listener, tls, key, str(number), epoch=epoch)
        last[listener, tls, key] = str(number) if epoch == 2 else ""
    for (listener, tls, key), newest in last.items():
        assert cache.find(listener, tls, key) in (newest or None, None)


@given(st.binary(max_size=200), st.integers(0, 199), st.integers(1, 255))
def test_the_hash_sees_every_byte(probes: ModuleType, key: bytes, at: int, change: int) -> None:
    if at < len(key):
        other = key[:at] + bytes([key[at] ^ change]) + key[at + 1 :]
        assert probes.hash_of(other) != probes.hash_of(key)
    assert probes.hash_of(key + b"\0") != probes.hash_of(key)


def same_set(probes: ModuleType, count: int = 2) -> list[bytes]:
    """Keys that share a set of two places (8 192 places, listener 0)."""
    wanted = probes.hash_of(KEY) & 8191 & ~1
    keys = [KEY]
    number = 0
    while len(keys) < count:
        key = f"candidate {number}".encode()
        number += 1
        if probes.hash_of(key) & 8191 & ~1 == wanted:
            keys.append(key)
    return keys
