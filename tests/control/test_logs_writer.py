"""LineWriter: nobody waits for who reads the log, and nothing is lost without being counted."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kit.waiting import wait_until

from lbctl.logs import Descriptor, LineWriter, LogFile


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for fd in (reader, writer):
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


def test_lines_come_out_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LineWriter(LogFile(path))
    expected = [f"line {number}" for number in range(5000)]
    for line in expected:
        writer.put(line)
    assert writer.close(10)
    assert path.read_text().splitlines() == expected
    assert writer.lost == 0


def test_a_file_is_appended_to_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for line in ("one", "two"):
        writer = LineWriter(LogFile(path))
        writer.put(line)
        assert writer.close(10)
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o777 & ~0o640 == 0


def test_a_file_that_was_renamed_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbctl.logs.sinks._RENAMED_EVERY", 0.0)
    path, rotated = tmp_path / "log", tmp_path / "log.1"
    writer = LineWriter(LogFile(path))
    writer.put("before")
    wait_until(lambda: path.read_text() == "before\n")
    path.rename(rotated)
    writer.put("after")
    assert writer.close(10)
    assert rotated.read_text() == "before\n"
    assert path.read_text() == "after\n"


def test_a_full_disk_is_counted_and_named() -> None:
    writer = LineWriter(LogFile(Path("/dev/full")))
    writer.put("one", "two")
    wait_until(lambda: writer.problem)
    assert writer.problem == "No space left on device"
    assert writer.lost == 2
    writer.put("three")
    assert not writer.close(5)
    assert writer.lost == 3


def test_a_reader_that_does_not_read_stops_nobody(pipe: tuple[int, int]) -> None:
    writer = LineWriter(Descriptor(pipe[1]), backlog_max=1 << 20)
    line = "x" * 999
    began = time.monotonic()
    for _ in range(3000):
        writer.put(line)
    assert not writer.close(0.2)
    assert time.monotonic() - began < 10
    taken = drain(pipe[0])
    assert taken.count(b"\n") + writer.lost == 3000


def test_a_slow_reader_gets_everything(pipe: tuple[int, int]) -> None:
    writer = LineWriter(Descriptor(pipe[1]))
    taken = bytearray()

    def read() -> None:
        while taken.count(b"\n") < 2000:
            taken.extend(os.read(pipe[0], 1000))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(2000):
        writer.put(f"{number:0200}")
    assert writer.close(10)
    reader.join(10)
    assert [int(line) for line in taken.splitlines()] == list(range(2000))


def test_a_reader_that_left_is_counted(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    writer = LineWriter(Descriptor(pipe[1]))
    writer.put("one")
    wait_until(lambda: writer.lost == 1)
    assert writer.problem == "Broken pipe"
    writer.close(5)


def test_a_line_torn_by_a_full_disk_does_not_spoil_the_next() -> None:
    sink = TearingSink(room=7)
    writer = LineWriter(sink)
    writer.put("first", "second")
    wait_until(lambda: writer.lost == 1)
    sink.room = 100
    writer.put("third")
    assert writer.close(10)
    assert bytes(sink.taken) == b"first\ns\nthird\n"
    assert writer.lost == 1


def test_nothing_is_taken_after_the_end(tmp_path: Path) -> None:
    writer = LineWriter(LogFile(tmp_path / "log"))
    assert writer.close(5)
    writer.put("late")
    assert writer.lost == 1


def test_a_named_pipe_without_a_reader_is_an_error_not_a_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        LogFile(tmp_path / "fifo")


class TearingSink:
    """Takes so many bytes and then no more."""

    name = "tearing"

    def __init__(self, room: int) -> None:
        self.room = room
        self.taken = bytearray()

    def write(self, data: bytes, give_up: Callable[[], bool]) -> int:
        taken = data[: self.room]
        self.room -= len(taken)
        self.taken += taken
        return len(taken)

    def close(self) -> None:
        pass


def drain(reader: int) -> bytes:
    taken = b""
    while select.select([reader], [], [], 0)[0] and (part := os.read(reader, 1 << 16)):
        taken += part
    return taken
