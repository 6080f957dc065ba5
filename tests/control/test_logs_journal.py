"""Journal: where lines go, what is sampled, what is said about losses."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbcore import Record
from lbctl.config import build
from lbctl.logs import Journal, LineWriter
from lbctl.logs.bridge import bridged


class Memory:
    """A sink that keeps what it gets; it fails while `failure` is set."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = bytearray()
        self.failure: OSError | None = None

    def write(self, data: bytes, give_up: Callable[[], bool]) -> int:
        if self.failure is not None:
            raise self.failure
        self.taken += data
        return len(data)

    def close(self) -> None:
        pass

    def entries(self, event: str) -> list[dict[str, Any]]:
        parsed = [json.loads(line) for line in self.taken.splitlines()]
        return [entry for entry in parsed if entry["event"] == event]


class Bench:
    """A journal over memory, with a clock of the test's own."""

    def __init__(self, file: bool = False, **logging_: Any) -> None:
        config = build(
            {
                "version": 1,
                "node": {"name": "lb-1"},
                "tls": {"cert": "s.pem", "key": "s.key", "client_ca": "ca.pem"},
                "apps": {"web": {"listen": "127.0.0.1:0", "upstreams": [{"address": "127.0.0.1:1"}]}},
                "logging": logging_,
            }
        )
        self.now = 1000.0
        self.stderr, self.access = Memory("stderr"), Memory("access.jsonl")
        self.file = LineWriter(self.access) if file else None
        self.journal = Journal(
            config, LineWriter(self.stderr), self.file, wall=lambda: 0.0, monotonic=lambda: self.now
        )


def record(event: str = "conn.close", reason: str = "client_closed", **changes: Any) -> Record:
    plain: dict[str, Any] = dict.fromkeys(Record._fields)
    numbers = {"attempts": 1, "bytes_in": 0, "bytes_out": 0, "errno": 0, "duration_ms": 1.0, "time": 0.0}
    texts = {"id": "1", "app": "web", "source": "127.0.0.1:1", "stage": "close", "claimed": False}
    return Record(**{**plain, **numbers, **texts, "event": event, "reason": reason, **changes})


def denied(reason: str = "not_tls", **changes: Any) -> Record:
    return record("conn.deny", reason, **changes)


def test_events_and_records_share_stderr_without_a_file() -> None:
    bench = Bench()
    bench.journal.event("ready", app="web")
    bench.journal.on_records([record(), denied()])
    assert bench.journal.close()
    assert [entry["event"] for entry in map(json.loads, bench.stderr.taken.splitlines())] == [
        "ready", "conn.close", "conn.deny",
    ]  # fmt: skip


def test_records_go_to_the_file_when_there_is_one() -> None:
    bench = Bench(file=True)
    bench.journal.event("ready", app="web")
    bench.journal.on_records([record(), denied()])
    assert bench.journal.close()
    assert len(bench.stderr.taken.splitlines()) == 1
    assert len(bench.access.taken.splitlines()) == 2


@pytest.mark.parametrize(("sample", "expected"), [(1.0, 1000), (0.25, 250), (0.1, 100), (0.0, 0)])
def test_finished_connections_are_sampled_and_refusals_never(sample: float, expected: int) -> None:
    bench = Bench(access={"sample": sample}, max_denied_per_second=5000)
    bench.journal.on_records([record(), denied()] * 1000)
    assert bench.journal.close()
    assert len(bench.stderr.entries("conn.close")) == expected
    assert len(bench.stderr.entries("conn.deny")) == 1000


def test_the_timer_brings_the_sum_though_nothing_more_comes() -> None:
    bench = Bench(max_denied_per_second=2)
    bench.journal.on_records([denied(source=f"10.0.0.{number}:1") for number in range(10)])
    bench.now += 1.0
    bench.journal.tick()
    assert bench.journal.close()
    assert len(bench.stderr.entries("conn.deny")) == 2
    (summed,) = bench.stderr.entries("conn.deny.sum")
    assert summed == {
        "v": 1, "ts": "1970-01-01T00:00:00.000Z", "event": "conn.deny.sum", "node": "lb-1",
        "app": "web", "reason": "not_tls", "count": 8, "window_s": 1,
    }  # fmt: skip


def test_the_stop_brings_the_sum() -> None:
    bench = Bench(max_denied_per_second=1)
    bench.journal.on_records([denied("rate", client="trial-1")] * 3)
    assert bench.journal.close()
    (summed,) = bench.stderr.entries("conn.deny.sum")
    assert (summed["client"], summed["reason"], summed["count"]) == ("trial-1", "rate", 2)


def test_clients_that_leave_cannot_fill_the_disk_either() -> None:
    bench = Bench(max_denied_per_second=1)
    bench.journal.on_records([denied("client_gone")] * 3)
    assert bench.journal.close()
    assert len(bench.stderr.entries("conn.close")) == 1
    assert bench.stderr.entries("conn.close.sum")[0]["count"] == 2


def test_a_claimed_name_counts_as_a_stranger() -> None:
    bench = Bench(max_denied_per_second=1)
    names = ("alice", "bob", "carol")
    bench.journal.on_records([denied("expired", client=name, claimed=True) for name in names])
    assert bench.journal.close()
    assert "client" not in bench.stderr.entries("conn.deny.sum")[0]


def test_lost_records_are_told_once() -> None:
    bench = Bench()
    bench.journal.tick(engine_dropped=7)
    bench.journal.tick(engine_dropped=7)
    bench.journal.tick(engine_dropped=9)
    assert bench.journal.close()
    assert [entry["count"] for entry in bench.stderr.entries("log.lost")] == [7, 2]


def test_a_failing_file_is_told_once_and_again_when_it_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lbctl.logs.writer._RETRY", 0.01)
    from kit.waiting import wait_until

    bench = Bench(file=True)
    assert bench.file is not None
    bench.access.failure = OSError(28, "No space left on device")
    bench.journal.on_records([record()])
    wait_until(lambda: bench.file.problem)  # type: ignore[union-attr]
    bench.journal.tick()
    bench.journal.tick()
    bench.access.failure = None
    bench.journal.on_records([record()])
    wait_until(lambda: bench.file.problem is None)  # type: ignore[union-attr]
    bench.journal.tick()
    assert bench.journal.close()
    (failed,) = bench.stderr.entries("log.failed")
    assert failed["file"] == "access.jsonl"
    assert "No space left" in failed["message"]
    (resumed,) = bench.stderr.entries("log.resumed")
    assert resumed["lost"] == 1


def test_one_bad_record_does_not_cost_the_others() -> None:
    bench = Bench()
    bench.journal.on_records([record(), record(serial="not a number"), record()])
    assert bench.journal.close()
    assert len(bench.stderr.entries("conn.close")) == 2
    assert len(bench.stderr.entries("log.error")) == 1


def test_log_messages_and_warnings_become_events() -> None:
    bench = Bench()
    with bridged(bench.journal):
        logging.getLogger("lbcore").error("first\nsecond")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging.captureWarnings(True)
            warnings.warn("odd", UserWarning, stacklevel=1)
    logging.getLogger("lbcore").debug("not ours any more")
    assert bench.journal.close()
    first, second = bench.stderr.entries("log")
    assert (first["level"], first["logger"]) == ("error", "lbcore")
    assert first["message"] == "first\\nsecond"
    assert "odd" in second["message"]


def test_threads_do_not_mix_lines() -> None:
    bench = Bench()
    threads = [
        threading.Thread(target=lambda: [bench.journal.event("ready", app="web") for _ in range(200)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bench.journal.close()
    assert len(bench.stderr.entries("ready")) == 800


def test_an_access_file_that_cannot_be_opened_raises(tmp_path: Path) -> None:
    from lbctl.logs import LogFile

    with pytest.raises(OSError, match="No such file"):
        LogFile(tmp_path / "none" / "access.jsonl")
