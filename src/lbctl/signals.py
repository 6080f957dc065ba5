"""Signals as something the main thread waits for."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
from types import FrameType, TracebackType
from typing import Self

_WAKE = 0  # no signal has this number


class Signals:
    """While entered, the named signals do nothing but end a `wait`.

    Python writes a signal's number into a socket the moment it arrives, on whichever thread, so none is
    lost and none interrupts anything. Enter, leave and `wait` on the main thread; `wake` on any.

    Args:
        numbers: the signals.
        restore: whether leaving gives them back to whoever had them. Else they do nothing from then on: one
            more must not kill a process that has finished and is about to say so.
    """

    def __init__(self, *numbers: signal.Signals, restore: bool = True) -> None:
        self._numbers, self._restore = numbers, restore

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        try:
            self._old_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        except ValueError:
            self._close()
            raise
        self._old = {number: signal.signal(number, _nothing) for number in self._numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old.items():
            # Not a handler that does nothing: at its end the interpreter would take that away.
            signal.signal(number, handler if self._restore else signal.SIG_IGN)
        signal.set_wakeup_fd(self._old_fd)
        self._close()

    def wait(self, timeout: float) -> list[signal.Signals]:
        """The signals that came, in order; none after `timeout` seconds or a `wake`."""
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        if not poll.poll(timeout * 1000):
            return []
        came = self._reader.recv(4096)
        return [signal.Signals(number) for number in came if number in self._numbers]

    def wake(self) -> None:
        """Ends the `wait` of the main thread."""
        with contextlib.suppress(OSError):  # full: it is awake; closed: it is gone
            self._writer.send(bytes((_WAKE,)))

    def _close(self) -> None:
        self._reader.close()
        self._writer.close()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """A handler must be there for the number to be written."""
