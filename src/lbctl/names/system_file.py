"""Files of the system that change under a running program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from lbctl.names.values import LookupFailed

FILE_MAX = 16 * 1024 * 1024  # bytes that are read; lists of unwanted names in /etc/hosts have a few MiB

T = TypeVar("T")


class SystemFile(Generic[T]):
    """What a file says now; it is read again when it has changed. One that is not there is empty.

    Args:
        path: the file.
        understand: makes the value of its text.

    Thread-safety: none; one thread uses it.
    """

    def __init__(self, path: Path, understand: Callable[[str], T]) -> None:
        self._path = path
        self._understand = understand
        self._read: tuple[tuple[int, ...], T] | None = None

    def value(self) -> T:
        """Of the text.

        Raises:
            LookupFailed: the file is there and cannot be read.
        """
        try:
            seen = self._look()
            if self._read is None or self._read[0] != seen:
                self._read = seen, self._understand(self._text() if seen else "")
        except OSError as error:
            raise LookupFailed(f"cannot read {self._path}: {error.strerror}") from None
        return self._read[1]

    def _look(self) -> tuple[int, ...]:
        """Differs when the file is another one."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return ()
        return status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev

    def _text(self) -> str:
        with self._path.open("rb") as file:
            return file.read(FILE_MAX).decode("utf-8", "replace")
