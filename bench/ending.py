"""How a program of the bench ends when it is told to: in order, so that what it has started ends as well."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TOLD_TO_END = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_waiting = False  # for something to be over that must not be disturbed
_told: int | None = None  # meanwhile


def run(main: Callable[[], int]) -> None:
    """Ends the process with what `main` returns, or as a shell says it of one that was ended by a signal. A
    signal that the process was started to ignore is ignored, as SIGHUP after nohup(1)."""
    for told in _TOLD_TO_END:
        if signal.getsignal(told) is not signal.SIG_IGN:
            signal.signal(told, _end)
    sys.exit(main())


def _end(number: int, frame: object) -> None:
    """Once: whoever says it again does not disturb the cleaning up."""
    global _told
    if _waiting:
        _told = number
        return
    for told in _TOLD_TO_END:
        signal.signal(told, signal.SIG_IGN)
    sys.exit(128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whoever tells the process to end waits meanwhile: until there is somebody who ends what is started, and
    for a fork, in whose hooks Python throws away what a handler raises. Does not nest."""
    global _waiting
    _waiting = True
    try:
        yield
    finally:
        _waiting = False
    if _told is not None:
        _end(_told, None)
