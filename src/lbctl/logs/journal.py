"""The one place events and records pass on their way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from lbcore import Record, RecordLines
from lbctl.config.model import Config
from lbctl.logs import lines, records
from lbctl.logs.sums import WINDOW, DenySums, Key
from lbctl.logs.writer import LineWriter
from lbctl.policy import Rules

CLOSE_WITHIN = 2.0  # seconds for whoever reads stderr to take the last lines


class Journal:
    """Writes events to stderr, and records to the access file or to stderr as well.

    Args:
        config: its `logging` section, the node's name, and the rules that say how a refusal is mended.
        stderr: where events go.
        access: where records go, always as JSON; None: with the events.
        pretty: whether stderr gets words for people or JSON.
        wall: the time of events.
        monotonic: the time of windows.

    Thread-safety: every method may be called from any thread. None of them waits for a reader or a
    disk, except `close`, which does so for a bounded time.
    """

    def __init__(
        self,
        config: Config,
        stderr: LineWriter,
        access: LineWriter | None = None,
        *,
        pretty: bool = False,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        as_json = lines.json_format(config.node.name)
        self._stderr, self._access = stderr, access
        self._format_event = lines.pretty if pretty else as_json
        self._format_record = as_json if access is not None else self._format_event
        #: How the engine writes finished connections by itself; None: it hands all of them over, as records.
        self.record_lines = (
            RecordLines(self._put_whole, config.node.name, config.logging.access.sample)
            if self._format_record is as_json
            else None
        )
        self._rules = Rules(config)
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._sums = DenySums(config.logging.max_denied_per_second, monotonic())
        self._sample = config.logging.access.sample
        self._share = 0.0  # of the next finished connection that was carried over
        self._failed = False  # the access file, as last reported
        self._told: dict[str, int] = {}  # losses as last reported, by where

    # ---- in

    def event(self, name: str, /, **fields: Any) -> None:
        """Writes one event; `message` is its prose."""
        self._stderr.put(self._format_event(name, self._wall(), fields))

    def text(self, text: str) -> None:
        """Writes text for people as it is: line breaks count."""
        self._stderr.put(*text.splitlines())

    def on_records(self, batch: Sequence[Record]) -> None:
        """Writes what the engine wrote down. Never raises: one bad record must not cost the others."""
        written: list[str] = []
        with self._lock:
            self._roll(written)
            for record in batch:
                try:
                    self._take(record, written)
                except Exception as error:
                    self.event("log.error", id=record.id, message=f"a record was not written: {error!r}")
        self._put(written)

    # ---- once in a while

    def tick(self, engine_dropped: int = 0) -> None:
        """Once a second: closes the window of sums, says what was lost and whether the file works.

        Args:
            engine_dropped: records the engine could not hand over, since the start.
        """
        written: list[str] = []
        with self._lock:
            self._roll(written)
            self._report_file()
            self._report_lost("engine", engine_dropped)
            self._report_lost("stderr", self._stderr.lost)
        self._put(written)

    def close(self) -> bool:
        """Writes the last sums and what waits; whether everything was written in time."""
        written: list[str] = []
        with self._lock:
            self._write_sums(self._sums.flush(self._monotonic()), written)
        self._put(written)
        complete = self._access is None or self._access.close(CLOSE_WITHIN)
        self.tick()
        return self._stderr.close(CLOSE_WITHIN) and complete

    # ---- details; called with the lock held

    def _take(self, record: Record, written: list[str]) -> None:
        name = records.event(record)
        if record.event == "conn.deny":
            if not self._sums.admit(_key(name, record)):
                return
        elif not self._sampled():
            return
        written.append(self._format_record(name, record.time, records.fields(record, self._rules)))

    def _sampled(self) -> bool:
        """An even share of the connections rather than a random one: a count times 1/share is exact."""
        self._share += self._sample
        if self._share < 0.999999:
            return False
        self._share -= 1.0
        return True

    def _roll(self, written: list[str]) -> None:
        self._write_sums(self._sums.roll(self._monotonic()), written)

    def _write_sums(self, sums: list[tuple[Key, int]], written: list[str]) -> None:
        for key, count in sums:
            fields = {"app": key.app, "client": key.client, "reason": key.reason, "count": count}
            known = {name: value for name, value in fields.items() if value is not None}
            line = self._format_record(f"{key.event}.sum", self._wall(), known | {"window_s": WINDOW})
            written.append(line)

    def _report_file(self) -> None:
        if self._access is None:
            return
        problem = self._access.problem
        if problem is not None and not self._failed:
            self.event("log.failed", file=self._access.name, message=f"records are lost: {problem}")
        elif problem is None and self._failed:
            lost = self._access.lost - self._told.get("access", 0)
            self._told["access"] = self._access.lost
            self.event("log.resumed", file=self._access.name, lost=lost)
        elif problem is None:
            self._report_lost("access", self._access.lost)
        self._failed = problem is not None

    def _report_lost(self, where: str, total: int) -> None:
        lost = total - self._told.get(where, 0)
        if lost > 0:
            self._told[where] = total
            self.event("log.lost", where=where, count=lost)

    def _put(self, written: list[str]) -> None:
        if written:
            (self._access or self._stderr).put(*written)

    def _put_whole(self, lines: bytes) -> None:
        (self._access or self._stderr).put_whole(lines)


def _key(event: str, record: Record) -> Key:
    """A name that was claimed and not proven is a stranger's."""
    return Key(event, record.app, None if record.claimed else record.client, record.reason)
