"""A thread that writes lines, so that nobody else waits for a disk or a terminal."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable

from lbctl.logs.sinks import Sink

BACKLOG_MAX = 4 << 20  # bytes that wait; some ten thousand lines
_BATCH = 256 << 10  # bytes given to the sink at once
_RETRY = 1.0  # seconds between tries while the sink fails


class LineWriter:
    """Takes lines without blocking and writes them in order; drops and counts what does not fit.

    Thread-safety: every method may be called from any thread.
    """

    def __init__(self, sink: Sink, backlog_max: int = BACKLOG_MAX) -> None:
        self._sink = sink
        self._backlog_max = backlog_max
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._problem: str | None = None
        self._torn = False  # the last line written is not complete
        self._give_up_at: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"log {sink.name}", daemon=True)
        self._thread.start()

    @property
    def name(self) -> str:
        """Where the lines go, for messages."""
        return self._sink.name

    @property
    def lost(self) -> int:
        """Lines that were not written, since the start."""
        with self._changed:
            return self._lost

    @property
    def problem(self) -> str | None:
        """Why the last write failed; None when it worked."""
        with self._changed:
            return self._problem

    def put(self, *lines: str) -> None:
        """Takes whole lines, each without its end. Line breaks inside are the caller's to escape."""
        self._take(line.encode("utf-8", "backslashreplace") + b"\n" for line in lines)

    def put_whole(self, data: bytes) -> None:
        """Takes whole lines as they are written; all of them or none."""
        self._take((data,))

    def _take(self, pieces: Iterable[bytes]) -> None:
        with self._changed:
            for data in pieces:
                if self._give_up_at is not None or self._bytes + len(data) > self._backlog_max:
                    self._lost += data.count(b"\n")
                    continue
                self._waiting.append(data)
                self._bytes += len(data)
            self._changed.notify()

    def close(self, timeout: float) -> bool:
        """Writes what waits, for at most that many seconds; whether all of it was written."""
        with self._changed:
            if self._give_up_at is None:
                self._give_up_at = time.monotonic() + timeout
            lost = self._lost
            self._changed.notify()
        self._thread.join(timeout + 1.0)
        return not self._thread.is_alive() and self.lost == lost

    def _gave_up(self) -> bool:
        at = self._give_up_at
        return at is not None and time.monotonic() >= at

    def _run(self) -> None:
        while batch := self._next_batch():
            data = b"".join(batch)
            mend = b"\n" if self._torn else b""  # the rest of a torn line is lost, the next one is whole
            try:
                done = max(0, self._sink.write(mend + data, self._gave_up) - len(mend))
                problem = None
            except OSError as error:
                done, problem = 0, error.strerror or str(error)
            if done:
                self._torn = not data[:done].endswith(b"\n")
            with self._changed:
                self._bytes -= len(data)
                self._lost += data.count(b"\n", done)
                self._problem = problem
        self._sink.close()

    def _next_batch(self) -> list[bytes]:
        """Some pieces of whole lines, as soon as there are any; none at the end."""
        with self._changed:
            if self._problem is not None:  # a full disk is not asked thousands of times a second
                self._changed.wait_for(lambda: self._give_up_at is not None, _RETRY)
            self._changed.wait_for(lambda: self._waiting or self._give_up_at is not None)
            if self._gave_up():
                self._lost += sum(data.count(b"\n") for data in self._waiting)
                self._waiting.clear()
            batch: list[bytes] = []
            size = 0
            while self._waiting and size < _BATCH:
                batch.append(self._waiting.popleft())
                size += len(batch[-1])
            return batch
