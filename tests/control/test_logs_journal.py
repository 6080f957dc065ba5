"""Journal: where lines go, what is said about sums and losses."""

from __future__ import annotations

import json
import logging
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lbcore import Record, RefusalSum
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
    """A journal over memory."""

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
        self.stderr, self.access = Memory("stderr"), Memory("access.jsonl")
        self.file = LineWriter(self.access) if file else None
        self.journal = Journal(config, LineWriter(self.stderr), self.file, wall=lambda: 0.0)


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


def test_the_engine_is_told_what_to_leave_out() -> None:
    bench = Bench(access={"sample": 0.25}, max_denied_per_second=7)
    selection = bench.journal.record_selection
    assert (selection.sample, selection.refusals) == (0.25, 7)
    assert bench.journal.close()


def test_a_sum_is_a_line() -> None:
    bench = Bench()
    bench.journal.on_sums([RefusalSum("web", None, "not_tls", 8), RefusalSum("web", "trial-1", "rate", 2)])
    assert bench.journal.close()
    strangers, client = bench.stderr.entries("conn.deny.sum")
    assert strangers == {
        "v": 1, "ts": "1970-01-01T00:00:00.000Z", "event": "conn.deny.sum", "node": "lb-1",
        "app": "web", "reason": "not_tls", "count": 8, "window_s": 1,
    }  # fmt: skip
    assert (client["client"], client["reason"], client["count"]) == ("trial-1", "rate", 2)


def test_clients_that_left_are_not_summed_as_refused() -> None:
    bench = Bench()
    bench.journal.on_sums([RefusalSum("web", None, "client_gone", 3)])
    assert bench.journal.close()
    assert bench.stderr.entries("conn.close.sum")[0]["count"] == 3


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
    wait_until(lambda: bench.file.problem)  # type: ignore[union-attr]  # asserted above
    bench.journal.tick()
    bench.journal.tick()
    bench.access.failure = None
    bench.journal.on_records([record()])
    wait_until(lambda: bench.file.problem is None)  # type: ignore[union-attr]  # asserted above
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
