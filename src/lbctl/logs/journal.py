"""The one place events and records pass on their way out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from lbcore import Record, RecordLines, RecordSelection, RefusalSum
from lbcore.records import SUM_WINDOW
from lbctl.config.model import Config
from lbctl.logs import lines, records
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

    Attributes:
        record_lines: how the engine writes records as lines by itself; None: it hands them to `on_records`.
        record_selection: which of them it tells of at all.

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
    ) -> None:
        as_json = lines.json_format(config.node.name)
        self._stderr, self._access = stderr, access
        self._format_event = lines.pretty if pretty else as_json
        self._format_record = as_json if access is not None else self._format_event
        self.record_lines = (
            RecordLines(self._put_whole, config.node.name, self._line)
            if self._format_record is as_json
            else None
        )
        self.record_selection = RecordSelection(
            config.logging.access.sample, config.logging.max_denied_per_second, self.on_sums
        )
        self._rules = Rules(config)
        self._wall = wall
        self._lock = threading.Lock()
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
        """Writes what the engine wrote down."""
        self._put([line for line in map(self._line, batch) if line is not None])

    def on_sums(self, sums: Sequence[RefusalSum]) -> None:
        """Writes how many refusals there were beyond those that were written."""
        self._put([self._sum_line(refusals) for refusals in sums])

    # ---- once in a while

    def tick(self, engine_dropped: int = 0) -> None:
        """Once a second: says what was lost and whether the file works.

        Args:
            engine_dropped: records the engine could not hand over, since the start.
        """
        with self._lock:
            self._report_file()
            self._report_lost("engine", engine_dropped)
            self._report_lost("stderr", self._stderr.lost)

    def close(self) -> bool:
        """Writes what waits; whether everything was written in time."""
        complete = self._access is None or self._access.close(CLOSE_WITHIN)
        self.tick()
        return self._stderr.close(CLOSE_WITHIN) and complete

    # ---- lines

    def _line(self, record: Record) -> str | None:
        """Never raises: one bad record must not cost the others."""
        try:
            fields = records.fields(record, self._rules)
            return self._format_record(records.event(record), record.time, fields)
        except Exception as error:
            self.event("log.error", id=record.id, message=f"a record was not written: {error!r}")
            return None

    def _sum_line(self, refusals: RefusalSum) -> str:
        fields = {**asdict(refusals), "window_s": SUM_WINDOW}
        known = {name: value for name, value in fields.items() if value is not None}
        event = records.event_of_refusal(refusals.reason)
        return self._format_record(f"{event}.sum", self._wall(), known)

    # ---- losses; called with the lock held

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

    # ---- out

    def _put(self, written: list[str]) -> None:
        if written:
            (self._access or self._stderr).put(*written)

    def _put_whole(self, lines: bytes) -> None:
        (self._access or self._stderr).put_whole(lines)
