"""Upstream servers under the tests' control.

Each is a real TCP server on an ephemeral loopback port. `Upstream` accepts on one thread and runs a
script for each connection on another; scripts are plain functions. The others misbehave below that.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from kit.sockets import End, reset
from kit.waiting import PATIENCE, wait_until

Script = Callable[["Session"], None]
#: No socket of a test upstream waits longer than this.
SOCKET_TIMEOUT = 30.0


class Session:
    """One connection that an upstream accepted.

    Attributes:
        sock: its socket; a script may use and close it.
        received: what a script that collects has read so far.
        ended: how the balancer's side ended, once the script has seen it.
        released: set when the upstream is closed, or by a test that has held it long enough.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()
        self.ended: End | None = None
        self.released = threading.Event()

    def collect(self) -> None:
        """Reads into `received` to the end."""
        while True:
            try:
                part = self.sock.recv(1 << 18)
            except (ConnectionResetError, BrokenPipeError):
                self.ended = End.RESET
                return
            if not part:
                self.ended = End.FIN
                return
            self.received += part

    def wait_end(self, timeout: float = PATIENCE) -> End:
        """How the balancer's side ended, when it has."""
        wait_until(lambda: self.ended, "the upstream sees an end", timeout=timeout)
        assert self.ended is not None
        return self.ended


# ---- scripts -------------------------------------------------------------------------------------


def echo(session: Session) -> None:
    """Sends back what comes, and the end too."""
    while True:
        try:
            part = session.sock.recv(1 << 17)
            if not part:
                session.ended = End.FIN
                session.sock.shutdown(socket.SHUT_WR)
                return
            session.sock.sendall(part)
        except (ConnectionResetError, BrokenPipeError):
            session.ended = End.RESET
            return


def sink(session: Session) -> None:
    """Collects everything, then ends too."""
    session.collect()


def hold(session: Session) -> None:
    """Neither reads nor writes until it is released; then it collects."""
    session.released.wait()
    session.collect()


def source(data: bytes) -> Script:
    """Sends `data` and its end at once, then collects."""

    def run(session: Session) -> None:
        session.sock.sendall(data)
        session.sock.shutdown(socket.SHUT_WR)
        session.collect()

    return run


def greeter(greeting: bytes) -> Script:
    """Speaks first, then echoes."""

    def run(session: Session) -> None:
        session.sock.sendall(greeting)
        echo(session)

    return run


def reply_after_end(data: bytes) -> Script:
    """Collects to the end, only then answers."""

    def run(session: Session) -> None:
        session.collect()
        if session.ended is End.FIN:
            session.sock.sendall(data)

    return run


def resetter(before: bytes = b"") -> Script:
    """Sends `before`, waits for a byte, then resets."""

    def run(session: Session) -> None:
        session.sock.sendall(before)
        session.sock.recv(1)
        reset(session.sock)

    return run


# ---- servers -------------------------------------------------------------------------------------


class Upstream:
    """A server that runs a script for every connection.

    Args:
        script: runs on a thread of its own; when it returns, the connection is closed.
        accepting: whether to accept at once; else the kernel's queue holds the connections until
            `start_accepting`.
        receive_buffer: SO_RCVBUF of its connections, or None.
        host: a loopback address of either family.
        listener: a bound socket to listen on instead.
    """

    def __init__(
        self,
        script: Script = echo,
        *,
        accepting: bool = True,
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
        listener: socket.socket | None = None,
    ) -> None:
        self._script = script
        if listener is None:
            listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            listener.bind((host, 0))
        self._listener = listener
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.listen(1024)
        self._acceptor: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._unix = listener.family == socket.AF_UNIX
        self.port: int = 0 if self._unix else self._listener.getsockname()[1]
        self.address = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        if self._unix:
            self.address = f"unix:{self._listener.getsockname()}"
        self.sessions: list[Session] = []
        if accepting:
            self.start_accepting()

    @property
    def accepted(self) -> int:
        """Connections seen so far: zero means that nothing was ever dialled."""
        return len(self.sessions)

    def session(self, number: int = 0) -> Session:
        """A connection by the order of accept, when it is there."""
        wait_until(lambda: len(self.sessions) > number, f"connection {number} at the upstream")
        return self.sessions[number]

    def start_accepting(self) -> None:
        """Begins to accept, what waits in the queue first."""
        self._acceptor = threading.Thread(target=self._accept, name="upstream-accept", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """Closes the port and every connection, and waits for the threads."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        if self._acceptor is not None:
            self._acceptor.join(PATIENCE)
        self._listener.close()
        for session in self.sessions:
            session.released.set()
            with contextlib.suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)
        deadline = time.monotonic() + PATIENCE  # for all of them together
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for session in self.sessions:
            session.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError as error:
                if error.errno == errno.EMFILE and not self._closing.wait(0.01):
                    continue  # a test has used the descriptors up, and gives them back
                return
            sock.settimeout(SOCKET_TIMEOUT)
            if not self._unix:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            session = Session(sock)
            thread = threading.Thread(target=self._run, args=(session,), name="upstream", daemon=True)
            self.sessions.append(session)
            self._threads.append(thread)
            thread.start()

    def _run(self, session: Session) -> None:
        # Whatever the other side does is what the test is about: it shows in `ended`.
        try:
            self._script(session)
        except ConnectionResetError:
            session.ended = End.RESET
        except OSError:
            pass
        finally:
            session.sock.close()


class Refuser:
    """A port that refuses every connection, and that nobody else can take meanwhile."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with socket.socket() as first:
            first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            first.bind(("127.0.0.1", 0))
            # Only a port that was asked for by its number stays with the socket when it stops to listen.
            self._socket.bind(first.getsockname())
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def revive(self, script: Script = echo) -> Upstream:
        """A server on this port; when it is closed, the port refuses again."""
        return Upstream(script, listener=self._socket.dup())

    def close(self) -> None:
        """Gives the port up."""
        self._socket.close()


class Flapper:
    """A server that is there for some seconds and gone for as many, on the same port, again and again.

    Args:
        period: seconds it is there, and seconds it is gone.
        script: of its connections.

    Attributes:
        times: how often it has come and gone.
    """

    def __init__(self, period: float, script: Script = echo) -> None:
        self.times = 0
        self._base = Refuser()
        self.port, self.address = self._base.port, self._base.address
        self._period = period
        self._script = script
        self._staying = threading.Event()
        self._last: Upstream | None = None
        self._thread = threading.Thread(target=self._flap, name="flapper", daemon=True)
        self._thread.start()

    def stay(self) -> None:
        """Comes back when it is there for good."""
        self._staying.set()
        self._thread.join(PATIENCE)

    def close(self) -> None:
        """Ends it and gives the port up."""
        self.stay()
        if self._last is not None:
            self._last.close()
        self._base.close()

    def _flap(self) -> None:
        self._last = self._base.revive(self._script)
        while not self._staying.wait(self._period):
            self._last.close()
            self._staying.wait(self._period)
            self._last = self._base.revive(self._script)
            self.times += 1


class Blackhole:
    """A port whose queue is full: a dial gets no answer until it times out."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(0)
        self.port: int = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._fillers: list[socket.socket] = []
        while self._fill():
            assert len(self._fillers) < 16, "the queue does not fill up"

    def _fill(self) -> bool:
        filler = socket.socket()
        filler.settimeout(0.2)
        self._fillers.append(filler)
        try:
            filler.connect(("127.0.0.1", self.port))
        except TimeoutError:
            return False
        return True

    def revive(self, script: Script = echo) -> Upstream:
        """A server with room in its queue: whoever is dialling gets through when the kernel asks again."""
        return Upstream(script, listener=self._socket.dup())

    def refuse(self) -> None:
        """Whoever is dialling is refused when the kernel asks again."""
        self._socket.close()

    def close(self) -> None:
        """Gives the port up."""
        for filler in self._fillers:
            filler.close()
        self._socket.close()


__all__ = [
    "Blackhole",
    "Flapper",
    "Refuser",
    "Session",
    "Upstream",
    "echo",
    "greeter",
    "hold",
    "reply_after_end",
    "resetter",
    "sink",
    "source",
]
