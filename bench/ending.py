"""How a program of the bench ends when it is told to: in order, so that what it has started ends as well."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_TOLD_TO_END = (signal.SIGTERM, signal.SIGHUP)


def run(main: Callable[[], int]) -> None:
    """Ends the process with what `main` returns, or as a shell says it of one that was ended by a signal."""
    for told in _TOLD_TO_END:
        signal.signal(told, _end)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Whoever tells the process to end waits meanwhile: for a fork, in whose hooks Python throws away what a
    handler raises."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_TOLD_TO_END, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
