"""Lines that the core writes of finished connections: the same that Python writes of their records, in one
buffer with those that Python writes."""

from __future__ import annotations

import json
import socket
import struct
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lbcore
from lbctl.config import build
from lbctl.logs import records
from lbctl.logs.lines import json_format
from lbctl.policy import Rules

CIPHER = b"TLS_AES_128_GCM_SHA256"
APP = {"listen": "127.0.0.1:1", "plaintext": True, "upstreams": [{"address": "127.0.0.1:2"}]}
RULES = Rules(build({"version": 1, "apps": {"orders": APP}}))
SECOND = 10**9

letters = st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\')
names = st.text(letters, min_size=1, max_size=256)
counts = st.integers(0, 2**64 - 1)
spans = st.integers(0, 10**6 * SECOND)


def four(host: str = "127.0.0.1", port: int = 40000) -> bytes:
    """A sockaddr_in."""
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + b"\0" * 8


def six(host: str, port: int) -> bytes:
    """A sockaddr_in6."""
    head = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0)
    return head + socket.inet_pton(socket.AF_INET6, host) + b"\0" * 4


class Written:
    """What the core wrote of one record, and what Python writes."""

    def __init__(
        self, probes: ModuleType, *, node: str = "lb-1", other: str | None = None, **entry: Any
    ) -> None:
        """`other`: what stands for a line of the record, where the core writes none."""
        self.text = ""
        self.other = other
        settings = lbcore.RecordLines(self._write, node, self._line)
        known = {"boot": "19a2f00d", "app": "orders", "source": four(), "reason": "client_closed"} | entry
        self.taken, record = probes.record_line(settings, **known)
        self.record: lbcore.Record = record
        event, fields = records.event(record), records.fields(record, RULES)
        self.by_python = json_format(node)(event, record.time, fields) + "\n"

    def _line(self, record: lbcore.Record) -> str | None:
        return self.other

    def _write(self, lines: bytes) -> None:
        """A whole buffer of the same line."""
        self.text, *others = lines.decode().splitlines(keepends=True)
        assert set(others) <= {self.text}


@given(
    node=st.text(max_size=255),
    app=names,
    client=st.none() | names,
    upstream=st.none() | names,
    serial=st.binary(max_size=20).map(lambda octets: octets.lstrip(b"\0")),
    tls=st.booleans(),
    source=st.builds(four, st.ip_addresses(v=4).map(str), st.integers(0, 65535))
    | st.builds(six, st.ip_addresses(v=6).map(str), st.integers(0, 65535)),
    reason=st.sampled_from(["client_closed", "upstream_closed", "idle", "drained", "upstream_reset"]),
    second=st.integers(0, 4 * 10**9),
    millisecond=st.integers(0, 999),
    numbers=st.fixed_dictionaries({"id": counts, "bytes_in": counts, "bytes_out": counts}),
    times=st.fixed_dictionaries({"handshake_ns": spans, "connect_ns": spans, "duration_ns": spans}),
    attempts=st.integers(0, 8),
    worker=st.integers(0, 63),
)
def test_a_line_is_what_python_writes(
    probes: ModuleType,
    node: str,
    tls: bool,
    second: int,
    millisecond: int,
    numbers: dict[str, int],
    times: dict[str, int],
    **entry: Any,
) -> None:
    when = {"wall_ns": second * SECOND + millisecond * 10**6}
    cipher = CIPHER if tls else None
    written = Written(probes, node=node, cipher=cipher, **when, **numbers, **times, **entry)
    assert written.taken
    assert json.loads(written.text) == json.loads(written.by_python)
    if len(written.by_python) < 1024 and "\\" not in written.by_python:
        assert written.text == written.by_python


def test_the_longest_lines_stay_inside_the_buffer(probes: ModuleType) -> None:
    """Many of them, so that the last one begins wherever it may."""
    numbers = ("id", "bytes_in", "bytes_out", "duration_ns", "handshake_ns", "connect_ns")
    most: dict[str, Any] = {**dict.fromkeys(numbers, 2**63), "attempts": 8, "worker": 63, "wall_ns": 2**62}
    most |= {"app": "a" * 256, "client": "c" * 256, "upstream": "u" * 256, "serial": b"\xff" * 20}
    source = six("1111:2222:3333:4444:5555:6666:7777:8888", 65535)
    for node in ("n", "\U0001f600" * 255):
        for length in range(1, 257, 5):
            most["client"] = "c" * length
            assert Written(probes, node=node, source=source, cipher=CIPHER, **most).taken


@pytest.mark.parametrize(
    ("ns", "shown"),
    [
        (1, 0.0),
        (499, 0.0),
        (500, 0.001),
        (1_499, 0.001),
        (10**6, 1.0),
        (1_230_000, 1.23),
        (12_345_678, 12.346),
    ],
)
def test_times_are_to_the_microsecond(probes: ModuleType, ns: int, shown: float) -> None:
    written = Written(probes, duration_ns=ns)
    assert json.loads(written.text)["duration_ms"] == written.record.duration_ms == shown
    assert written.text == written.by_python


@pytest.mark.parametrize(
    "told",
    [
        {"forwarded": False, "reason": "concurrent"},
        {"reason": "client_gone"},
        {"sys_errno": 104},
        {"error": b"bad record mac"},
        {"waited_ns": 5},
        {"would_deny": lbcore.REASONS.index("rate")},
        {"scope": 1},
        {"client": 'two "words"'},
        {"client": "back\\slash"},
        {"client": "müller"},
        {"upstream": "line\nbreak"},
        {"app": "\x1b[31mred"},
        {"client": "x" * 257},
    ],
    ids=lambda told: next(iter(told)),
)
def test_what_needs_words_or_escapes_is_left_to_python(probes: ModuleType, told: dict[str, Any]) -> None:
    written = Written(probes, other="a line", **told)
    assert not written.taken
    assert written.text == "a line\n"


@pytest.mark.parametrize("length", [0, 1, 65_535, 65_536, 200_000])
def test_a_line_of_python_may_have_any_length(probes: ModuleType, length: int) -> None:
    written = Written(probes, other="x" * length, reason="client_gone")
    assert written.text == "x" * length + "\n"


def test_python_may_leave_a_record_out(probes: ModuleType) -> None:
    assert Written(probes, other=None, reason="client_gone").text == ""


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((1, "n", str), TypeError, "write: a callable, not 1"),
        ((print, 1, str), TypeError, "node: a name, not 1"),
        ((print, "n" * 256, str), ValueError, "node: at most 255 characters, not 256"),
        ((print, "n", 1.5), TypeError, "line: a callable, not 1.5"),
    ],
)
def test_settings_name_what_is_wrong(arguments: tuple[Any, ...], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        lbcore.RecordLines(*arguments)
