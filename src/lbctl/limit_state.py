"""`node.limits_file`: what is left of buckets and windows, kept over a restart.

Once a second, and at the end, what the limiters hold is written if it has changed: to a new file beside
the old one, then renamed, so that after a crash there is one or the other. A thread of its own does that;
no connection waits for the disk. A process that is killed forgets a second at most. The file belongs to one
process: of two, the last to write would win.

At the start a limiter gets back what it had, as soon as it is made. Without a file, or with one that cannot
be understood (it is kept aside as `.corrupt`), every limit starts as on the first day: full buckets, empty
windows. Entries of clients and apps that the configuration no longer has are dropped, and those of limiters
that have had the time to forget.

Not kept: open connections (they ended with the process), and the limits of plaintext apps, which are
counted by source address.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lbcore import LimitClass, RateLimitManager
from lbctl.config.model import Config
from lbctl.errors import LbctlError
from lbctl.policy import Key, Limiters

FORMAT = 1  # `v` of the file
EVERY = 1.0  # seconds
CLOSE_WITHIN = 5.0  # seconds for the last write
_KEYS = {"app", "client", "state"}

#: Writes an event: its name and its fields.
Say = Callable[..., None]


@dataclass(frozen=True)
class _Entry:
    """A line of the file.

    Attributes:
        seen: the limiter's counters when it was written; None: they tell too little.
        line: the text.
        forgotten_at: when the limiter will have forgotten all of it, monotonic.
    """

    seen: tuple[int, ...] | None
    line: str
    forgotten_at: float = float("inf")


class LimitState:
    """The file, and what was in it for limiters that are not made yet.

    Args:
        path: of the file; its folder must be there and writable.
        config: whose clients and apps may have entries.
        say: how the operator hears of it.

    Thread-safety: `restore` may be called from any thread.

    Raises:
        LbctlError: nothing can be written there.
    """

    def __init__(self, path: Path, config: Config, say: Say) -> None:
        self._path = path.resolve()  # a link stays one
        self._new = self._path.with_name(self._path.name + ".new")
        self._say = say
        self._lock = threading.Lock()
        self._waiting: dict[Key, tuple[bytes, str]] = {}  # not restored yet: the state and its line
        self._entries: dict[Key, _Entry] = {}  # the writing thread's
        self._written: list[str] | None = None
        self._failed = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._check_writable()
        self._load(config)

    def restore(self, key: Key, manager: RateLimitManager) -> None:
        """Gives a limiter that was just made what it had."""
        with self._lock:
            found = self._waiting.pop(key, None)
        if found is not None:
            manager.restore(found[0])

    def start(self, limiters: Limiters) -> None:
        """Begins to keep the file up to date."""
        self._thread = threading.Thread(target=self._run, args=(limiters,), name="limits", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes it for the last time, if `start` was called."""
        self._stop.set()
        if self._thread is None:
            return
        self._thread.join(CLOSE_WITHIN)
        if self._thread.is_alive():
            self._say("limits.failed", file=str(self._path), message="not saved: the disk does not answer")

    # ---- reading

    def _load(self, config: Config) -> None:
        try:
            found = _parse(self._path.read_bytes())
        except FileNotFoundError:
            return
        except OSError as error:
            self._set_aside(f"cannot be read: {error.strerror}")
            return
        except (ValueError, RecursionError) as error:
            self._set_aside(f"is corrupt: {error}")
            return
        there = {key: state for key, state in found.items() if _is_there(key, config)}
        self._waiting = {key: (state, _line(key, state)) for key, state in there.items()}
        dropped = len(found) - len(self._waiting)
        self._say("limits.restored", file=str(self._path), limiters=len(self._waiting), dropped=dropped)

    def _set_aside(self, problem: str) -> None:
        aside = self._path.with_name(self._path.name + ".corrupt")
        try:
            self._path.replace(aside)
            kept = f"kept as {aside}"
        except OSError as error:
            kept = f"it cannot be renamed: {error.strerror}"
        message = f"the file {problem}; {kept}; limits start with full buckets and empty windows"
        self._say("limits.corrupt", file=str(self._path), message=message)

    # ---- writing

    def _check_writable(self) -> None:
        try:
            if self._path.exists() and not self._path.is_file():
                raise LbctlError(f"node.limits_file: {self._path} is not a regular file")
            os.close(self._open_new())
            self._new.unlink()
        except OSError as error:
            raise LbctlError(f"node.limits_file: cannot write {self._path}: {error.strerror}") from None

    def _run(self, limiters: Limiters) -> None:
        while True:
            last = self._stop.is_set()
            self._save(limiters)
            if last:
                return
            self._stop.wait(EVERY)

    def _save(self, limiters: Limiters) -> None:
        lines = self._lines(limiters)
        if lines == self._written:
            return
        try:
            self._write(lines)
        except OSError as error:
            if not self._failed:
                message = f"not saved, tried again every second: {error.strerror}"
                self._say("limits.failed", file=str(self._path), message=message)
            self._failed = True
            return
        if self._failed:
            self._say("limits.resumed", file=str(self._path))
        self._failed = False
        self._written = lines

    def _lines(self, limiters: Limiters) -> list[str]:
        """One for each limiter that has something to remember."""
        with self._lock:  # first, so that what is made meanwhile is in one of the two
            waiting = dict(self._waiting)
        now = time.monotonic()
        for key, (manager, limits) in limiters.all().items():
            waiting.pop(key, None)
            if not _remembers(limits):
                continue
            seen = _counters(manager, limits)
            known = self._entries.get(key)
            if known is None or seen is None or known.seen != seen:
                self._entries[key] = _Entry(seen, _line(key, manager.snapshot()), now + _memory(limits))
        kept = [entry.line for entry in self._entries.values() if entry.forgotten_at > now]
        return kept + [line for _, line in waiting.values()]

    def _write(self, lines: list[str]) -> None:
        content = f'{{"v":{FORMAT},"limits":[\n' + ",\n".join(lines) + "\n]}\n"
        fd = self._open_new()
        try:
            with os.fdopen(fd, "w", encoding="utf-8", closefd=False) as file:
                file.write(content)
            os.fsync(fd)
        finally:
            os.close(fd)
        self._new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # not every file system can; the file itself is complete
            os.fsync(folder)
        os.close(folder)

    def _open_new(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            self._new.unlink()  # of a process that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._new, flags, 0o600)


# ---- what a limiter remembers --------------------------------------------------------------------


def _paced(limits: LimitClass) -> bool:
    return limits.bandwidth_in is not None or limits.bandwidth_out is not None


def _remembers(limits: LimitClass) -> bool:
    return limits.rate is not None or limits.window is not None or _paced(limits)


def _memory(limits: LimitClass) -> float:
    """Seconds until an unused limiter is as new; bytes may be owed for long."""
    return float("inf") if _paced(limits) else limits.refill


def _counters(manager: RateLimitManager, limits: LimitClass) -> tuple[int, ...] | None:
    """The same numbers again: nothing has changed, but for bytes of open connections, which are counted
    when they end."""
    if _paced(limits) and manager.open:
        return None
    return manager.admitted, manager.open, manager.bytes_in, manager.bytes_out


# ---- the text of the file ------------------------------------------------------------------------


def _line(key: Key, state: bytes) -> str:
    """What is not set is left out."""
    fields = {"app": key.app, "client": key.client, "state": base64.b64encode(state).decode()}
    return json.dumps({name: value for name, value in fields.items() if value is not None})


def _parse(content: bytes) -> dict[Key, bytes]:
    """What a file holds, by limiter.

    Raises:
        ValueError: it is not what `LimitState` writes.
    """
    tree = json.loads(content)
    if not isinstance(tree, dict) or tree.get("v") != FORMAT or not isinstance(tree.get("limits"), list):
        raise ValueError(f"not a file of format {FORMAT}")
    return dict(map(_parse_entry, tree["limits"]))


def _parse_entry(entry: Any) -> tuple[Key, bytes]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise ValueError("an entry is not a mapping of text")
    if "state" not in entry or not set(entry) <= _KEYS or ("client" in entry and "app" not in entry):
        raise ValueError("an entry does not say whose it is")
    state = base64.b64decode(entry["state"], validate=True)
    RateLimitManager("any").restore(state)  # to find out now, not when the client comes
    return Key(entry.get("app"), entry.get("client")), state


def _is_there(key: Key, config: Config) -> bool:
    """Whether the configuration still has that client and that app, or limits them together."""
    if key.app is None:
        return config.node.limits is not None
    if key.client is None:
        return key.app in config.apps and config.apps[key.app].app_limits is not None
    return key.app in config.apps and key.client in config.clients
