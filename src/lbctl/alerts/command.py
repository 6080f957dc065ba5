"""`alerts.command`: a program is run for each alert, which is on its standard input."""

from __future__ import annotations

import contextlib
import io
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from functools import partial

from lbctl.alerts.hook import NotDelivered
from lbctl.interrupt import Interrupt, Interrupted
from lbctl.logs.printable import printable

STDERR_SHOWN = 200  # characters
_STDERR_KEPT = 4 * STDERR_SHOWN  # bytes; a character has four at most
_CHUNK = 65536
_REAP_WITHIN = 1.0  # seconds for a program to go that was killed


class Command:
    """A program that takes alerts; exit status 0 says that it has one.

    It runs in a process group of its own, in `/`, with no descriptor of ours, and its environment is `PATH`
    and `LANG`. What it writes to its standard output is dropped.

    Args:
        arguments: the program and its arguments; there is no shell.
        timeout: seconds for one alert; then the group is killed.
    """

    name = "command"

    def __init__(self, arguments: Sequence[str], timeout: float) -> None:
        self._arguments = list(arguments)
        self._timeout = timeout

    def deliver(self, alert: bytes, interrupt: Interrupt) -> None:
        """As `Hook.deliver`."""
        deadline = time.monotonic() + self._timeout
        try:
            with self._running() as process, interrupt.ending(partial(_kill, process)):
                talk = _Talk(process, alert + b"\n")
                ended = talk.until(deadline)
                if not ended:
                    _kill(process)  # while its number is its own, whether or not it has just ended
        except Interrupted:
            raise NotDelivered("given up") from None
        except OSError as error:
            raise NotDelivered(f"cannot run it: {error.strerror or error}") from None
        if not ended:
            raise NotDelivered(f"not done within {self._timeout:g} s; killed", **talk.details())
        if process.returncode != 0:
            raise NotDelivered(_ending(process.returncode), **talk.details())

    @contextlib.contextmanager
    def _running(self) -> Iterator[subprocess.Popen[bytes]]:
        """The program; afterwards it is gone, and so are the pipes to it."""
        process = subprocess.Popen(  # noqa: S603  # the operator's own program
            self._arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=_environment(),
            start_new_session=True,
        )
        try:
            yield process
        finally:
            for pipe in (process.stdin, process.stderr):
                if pipe is not None:
                    pipe.close()
            if process.poll() is None:
                _kill(process)
                with contextlib.suppress(subprocess.TimeoutExpired):  # it became somebody else, or hangs
                    process.wait(_REAP_WITHIN)


class _Talk:
    """What is written to a program and read from it while it runs.

    Args:
        process: its `stdin` and `stderr` are pipes.
        text: for the first.
    """

    def __init__(self, process: subprocess.Popen[bytes], text: bytes) -> None:
        assert isinstance(process.stdin, io.FileIO)
        assert isinstance(process.stderr, io.FileIO)
        self._pid = process.pid
        self._stdin, self._stderr = process.stdin, process.stderr
        self._left = text
        self._said = b""

    def until(self, deadline: float) -> bool:
        """Talks until the program ends, whether or not its children do; whether it did in time."""
        ended = os.pidfd_open(self._pid)
        try:
            with selectors.DefaultSelector() as selector:
                os.set_blocking(self._stdin.fileno(), False)
                os.set_blocking(self._stderr.fileno(), False)
                selector.register(self._stdin, selectors.EVENT_WRITE, self._write)
                selector.register(self._stderr, selectors.EVENT_READ, self._read)
                selector.register(ended, selectors.EVENT_READ)
                return self._wait(selector, deadline)
        finally:
            os.close(ended)

    def _wait(self, selector: selectors.BaseSelector, deadline: float) -> bool:
        while (left := deadline - time.monotonic()) > 0:
            over = False
            for key, _ in selector.select(left):
                if key.data is None:
                    over = True
                elif not key.data():
                    selector.unregister(key.fileobj)
                    if not self._left:
                        self._stdin.close()  # the program sees the end of its input
            if over:
                self._read()  # what it said last
                return True
        return False

    def _write(self) -> bool:
        """Writes; whether there is more to write."""
        try:
            self._left = self._left[self._stdin.write(self._left) or 0 :]
        except BrokenPipeError:  # it need not read it
            self._left = b""
        return bool(self._left)

    def _read(self) -> bool:
        """Reads; whether there may be more."""
        chunk = self._stderr.read(_CHUNK)
        self._said = (self._said + (chunk or b""))[:_STDERR_KEPT]
        return chunk != b""

    def details(self) -> dict[str, str]:
        """What it wrote to its standard error, the beginning, if it did."""
        text = printable(self._said.decode(errors="replace").strip(), STDERR_SHOWN)
        return {"stderr": text} if text else {}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends it and its children. Only while it was not waited for: then its number is another's."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment() -> dict[str, str]:
    """Nothing secret: ours may hold what `${NAME}` of the configuration stands for."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LANG": os.environ.get("LANG", "C.UTF-8")}


def _ending(status: int) -> str:
    if status > 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time one
        return f"killed by signal {-status}"
