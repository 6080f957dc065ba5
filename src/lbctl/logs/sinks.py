"""Where lines go: a descriptor that is open already, or a file of our own.

Writing may take as long as the reader likes, so it is done in pieces that do not block, and every wait
ends when `give_up` says so.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

_WAIT_MS = 100  # how often a write that waits looks at give_up
_RENAMED_EVERY = 1.0  # seconds between looks at whether a file was rotated away


class Sink(Protocol):
    """A place for bytes."""

    name: str

    def write(self, data: bytes, give_up: Callable[[], bool]) -> int:
        """Writes what can be written before `give_up`; how many bytes that was.

        Raises:
            OSError: nothing of this call was written, and why.
        """
        ...

    def close(self) -> None: ...


class Descriptor:
    """An open descriptor that belongs to somebody else, such as stderr: shared with other programs, so
    it is left in the mode it is in, blocking or not.

    A pipe that polls writable takes PIPE_BUF bytes without blocking (pipe(7)).
    """

    def __init__(self, fd: int, name: str = "stderr", piece: int = select.PIPE_BUF) -> None:
        self.name = name
        self._fd = fd
        self._piece = piece

    def write(self, data: bytes, give_up: Callable[[], bool]) -> int:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        done = 0
        while done < len(data):
            if not poll.poll(_WAIT_MS):
                if give_up():
                    break
                continue
            try:
                done += os.write(self._fd, data[done : done + self._piece])
            except BlockingIOError:
                continue
            except OSError:
                if done == 0:
                    raise
                break  # the next write says why
        return done

    def close(self) -> None:
        """Leaves the descriptor to its owner."""


class LogFile:
    """A file that is appended to, opened again when it was renamed or removed (log rotation).

    Args:
        path: made with mode 0640 when it is not there.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        self._fd = -1
        self._looked = time.monotonic()
        self._open()

    def write(self, data: bytes, give_up: Callable[[], bool]) -> int:
        now = time.monotonic()
        if self._fd < 0 or now - self._looked >= _RENAMED_EVERY:
            self._looked = now
            self._follow()
        return Descriptor(self._fd, self.name, piece=1 << 20).write(data, give_up)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        # O_NONBLOCK: a named pipe without a reader is an error here, not a start that hangs.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        self._fd = os.open(self._path, flags, 0o640)

    def _follow(self) -> None:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        ours = os.fstat(self._fd) if self._fd >= 0 else None
        if there and ours and (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
            return
        if ours and not stat.S_ISREG(ours.st_mode):
            return
        self.close()
        self._open()
