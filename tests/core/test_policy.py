"""The native table: a serial's client and what it may use, the plain dictionary as the model."""

from types import ModuleType

from hypothesis import given
from hypothesis import strategies as st

ALICE, MALLORY, OLD = b"\x4f\x3a", b"\x2b\x90", b"\x01"


def small(probes: ModuleType):  # type: ignore[no-untyped-def]
    clients = [("alice", [ALICE, b"\x51"], ["db", "web"], False), ("old", [OLD], ["db"], True)]
    return probes.Policy(clients, ["db", "web", "metrics"])


def test_default_deny(probes: ModuleType) -> None:
    table = small(probes)
    assert table.judge(MALLORY, "db") == ("unknown_serial", None)
    assert table.judge(b"", "db") == ("unknown_serial", None)
    assert table.judge(ALICE, "metrics") == ("app_not_allowed", "alice")
    assert table.judge(ALICE, "nowhere") == ("app_not_allowed", "alice")


def test_every_serial_of_a_client_is_the_client(probes: ModuleType) -> None:
    table = small(probes)
    assert table.judge(ALICE, "db") == ("", "alice")
    assert table.judge(b"\x51", "web") == ("", "alice")


def test_disabled_comes_before_what_would_be_allowed(probes: ModuleType) -> None:
    assert small(probes).judge(OLD, "db") == ("client_disabled", "old")


def test_names_are_compared_whole(probes: ModuleType) -> None:
    table = small(probes)
    assert table.judge(ALICE, "d") == ("app_not_allowed", "alice")
    assert table.judge(ALICE, "dbx") == ("app_not_allowed", "alice")


def test_serials_are_compared_whole(probes: ModuleType) -> None:
    for number in range(0x100, 0x200):  # some of them meet in one slot of the table
        serial = number.to_bytes(2, "big")
        table = probes.Policy([("alice", [serial], ["db"], False)], ["db"])
        assert table.judge(serial, "db") == ("", "alice")
        assert table.judge(serial[:1], "db")[0] == "unknown_serial"
        assert table.judge(serial + b"\0", "db")[0] == "unknown_serial"


def test_a_serial_belongs_to_one_client(probes: ModuleType) -> None:
    table = probes.Policy([("a", [b"\x01"], [], False), ("b", [b"\x01"], ["x"], False)], ["x"])
    assert table.refused == [b"\x01"]
    assert table.judge(b"\x01", "x") == ("app_not_allowed", "a")


def test_an_empty_table_knows_nobody(probes: ModuleType) -> None:
    assert probes.Policy([], []).judge(b"\x01", "x") == ("unknown_serial", None)


APPS = ["a", "b", "c", "d"]
SERIALS = st.integers(1, 2**160 - 1).map(lambda n: n.to_bytes((n.bit_length() + 7) // 8, "big"))
CLIENTS = st.lists(
    st.tuples(st.lists(SERIALS, max_size=5), st.sets(st.sampled_from(APPS)), st.booleans()), max_size=30
)


@given(CLIENTS, st.lists(SERIALS, max_size=5))
def test_like_a_dictionary(
    probes: ModuleType, clients: list[tuple[list[bytes], set[str], bool]], strangers: list[bytes]
) -> None:
    rows = [(f"c{i}", serials, sorted(apps), disabled) for i, (serials, apps, disabled) in enumerate(clients)]
    table = probes.Policy(rows, APPS)
    known: dict[bytes, tuple[str, list[str], bool]] = {}
    for name, serials, apps, disabled in rows:
        for serial in serials:
            known.setdefault(serial, (name, apps, disabled))
    for serial in [*known, *strangers]:
        for app in APPS:
            if serial not in known:
                expected = ("unknown_serial", None)
            elif known[serial][2]:
                expected = ("client_disabled", known[serial][0])
            else:
                expected = ("" if app in known[serial][1] else "app_not_allowed", known[serial][0])
            assert table.judge(serial, app) == expected
