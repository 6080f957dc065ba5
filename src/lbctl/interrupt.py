"""Ending what another thread waits for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator


class Interrupted(Exception):
    """It was called off before it began."""


class Interrupt:
    """Once set, what is under way ends and nothing further begins.

    Thread-safety: `set` may be called from any thread; what is ended is on one other thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], object] | None = None
        self._set = False

    def set(self) -> None:
        """Ends it."""
        with self._lock:
            self._set = True
            if self._end is not None:
                self._end()

    @contextlib.contextmanager
    def ending(self, end: Callable[[], object]) -> Iterator[None]:
        """In the block something waits that `end`, called from another thread, makes go on. After the
        block it is not called any more, so what it is about may then be closed.

        Raises:
            Interrupted: it was set before.
        """
        with self._lock:
            if self._set:
                raise Interrupted
            self._end = end
        try:
            yield
        finally:
            with self._lock:
                self._end = None
