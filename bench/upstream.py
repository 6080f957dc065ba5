"""The upstreams of a run: cheap servers whose job the first line of a connection selects.

    echo ...\\n   everything is sent back, this line included
    sink N\\n     N bytes are taken and thrown away, then "N\\n" is answered
    source N\\n   N bytes of a known pattern are sent

They run on the CPU of the load, never on the proxy's, and each is one process with one epoll set.
Bulk costs them little: the source writes from one buffer, the sink lets the kernel drop the bytes
(MSG_TRUNC) without copying them. The source does not use sendfile: skbs made of single pages are
dearer for whoever reads them (measured: a third more per byte), and few servers send such.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import select
import socket
from types import TracebackType

PATTERN = bytes(range(251)) * ((1 << 20) // 251 + 1)  # 251 is prime: a shifted copy never matches
_PIECE = 1 << 18
_PATTERN_VIEW = memoryview(PATTERN)
_FIRST_LINE_MAX = 64


class _Connection:
    """One connection; `wants` is the epoll interest after the last step, 0 when it is finished."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wants = select.EPOLLIN
        self._head = b""
        self._job = ""
        self._total = self._done = 0
        self._unsent = b""

    def step(self) -> None:
        """Go on as far as the socket allows."""
        try:
            match self._job:
                case "":
                    self._choose()
                case "echo":
                    self._echo(self._unsent or self.sock.recv(_PIECE))
                case "sink":
                    self._sink()
                case "source":
                    self._source()
        except BlockingIOError:
            pass
        except ConnectionError:
            self.wants = 0

    def _choose(self) -> None:
        data = self.sock.recv(_PIECE)
        self._head += data
        line, newline, rest = self._head.partition(b"\n")
        if not data or (not newline and len(self._head) > _FIRST_LINE_MAX):
            self.wants = 0
            return
        if not newline:
            return
        job, _, argument = line.decode("ascii", "replace").partition(" ")
        if job == "echo":
            self._job = job
            self._echo(self._head)
        elif job in ("sink", "source") and argument.isdigit():
            self._job, self._total, self._done = job, int(argument), len(rest)
            (self._finish_sink if job == "sink" else self._start_source)()
        else:
            self.wants = 0

    def _echo(self, data: bytes) -> None:
        if not data:
            self.wants = 0
            return
        self._unsent = data
        try:
            self._unsent = data[self.sock.send(data) :]
        finally:
            self.wants = select.EPOLLOUT if self._unsent else select.EPOLLIN

    def _sink(self) -> None:
        taken = self.sock.recv_into(_SCRATCH, len(_SCRATCH), socket.MSG_TRUNC)
        if not taken:
            self.wants = 0
            return
        self._done += taken
        self._finish_sink()

    def _finish_sink(self) -> None:
        if self._done >= self._total:
            self.sock.send(b"%d\n" % self._done)
            self._job, self._head = "", b""

    def _start_source(self) -> None:
        self._done = 0
        self.wants = select.EPOLLOUT
        self._source()

    def _source(self) -> None:
        while self._done < self._total:
            at = self._done % len(PATTERN)
            count = min(_PIECE, self._total - self._done)
            self._done += self.sock.send(_PATTERN_VIEW[at : at + count])
        self._job, self._head, self.wants = "", b"", select.EPOLLIN


_SCRATCH = bytearray(1 << 20)


def serve(listener: socket.socket) -> None:
    """Serves until the process ends."""
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    open_now: dict[int, _Connection] = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                _accept(listener, epoll, open_now)
                continue
            connection = open_now[fd]
            before = connection.wants
            connection.step()
            if not connection.wants:
                open_now.pop(fd).sock.close()
            elif connection.wants != before:
                epoll.modify(fd, connection.wants)


def _accept(listener: socket.socket, epoll: select.epoll, open_now: dict[int, _Connection]) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            sock, _ = listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            open_now[sock.fileno()] = _Connection(sock)
            epoll.register(sock, select.EPOLLIN)


class Upstreams:
    """Two upstream processes on ephemeral loopback ports, ended on exit."""

    def __init__(self) -> None:
        self.ports: tuple[int, int] = (0, 0)
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def __enter__(self) -> Upstreams:
        fork = multiprocessing.get_context("fork")
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
                listener.setblocking(False)
                ports.append(listener.getsockname()[1])
                process = fork.Process(target=serve, args=(listener,), daemon=True)
                process.start()
                self._processes.append(process)
        self.ports = (ports[0], ports[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
            process.close()
