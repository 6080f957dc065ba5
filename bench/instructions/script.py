"""What clients and upstreams do, one step at a time.

Each function is a generator: it does something to a socket and yields, and the worker runs until it has
nothing left to do; then it goes on. ACTED: something was done; WAITS: it needs what has not arrived yet.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator

ENDS, ACTED, WAITS = 0, 1, 2  # as in steps.c
PATIENCE = 60.0  # seconds: under valgrind everything takes fifty times as long
_ROOM = 1 << 18

Steps = Iterator[int]


class ScriptFailed(Exception):
    """The balancer did not do what the script waits for."""


def until(condition: Callable[[], bool], what: str) -> Steps:
    """Waits for something that the worker, or another thread, does."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise ScriptFailed(what)
        yield WAITS


class Peer:
    """One non-blocking socket, with TLS or without."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.sock = sock
        self.ended = False  # it has had the other side's FIN, or a reset
        self._got = bytearray()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = None
        if context is not None:
            self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    @property
    def has_tls(self) -> bool:
        return self._tls is not None

    def handshake(self, said: bytes = b"") -> Steps:
        """To its end, as the client sees it; what it says first goes with its last flight."""
        assert self._tls is not None
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                yield from self._flush()
                yield from until(lambda: self._pull() != b"", "no answer in a handshake")
                if self.ended:
                    raise ScriptFailed("the other side ends in a handshake") from None
            else:
                if said:
                    self._tls.write(said)
                yield from self._flush()
                return

    def send(self, data: bytes) -> Steps:
        """All of it, and then the worker's turn."""
        if self._tls is None:
            yield from self._write(data)
            return
        self._tls.write(data)
        yield from self._flush()

    def receive(self, count: int) -> Steps:
        """So many bytes, counted and thrown away."""
        yield from until(lambda: self._read() >= count, "bytes do not arrive")
        if len(self._got) != count:
            raise ScriptFailed(f"{len(self._got)} bytes arrived, not {count}")
        self._got.clear()

    def receive_end(self) -> Steps:
        """The other side's end, whatever its kind."""
        yield from until(lambda: self._pull() is None or self.ended, "the other side does not end")

    def end(self) -> Steps:
        """Says that nothing more will come."""
        if self._tls is not None:
            with contextlib.suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            yield from self._flush()
        self.sock.shutdown(socket.SHUT_WR)
        yield ACTED

    def close(self) -> Steps:
        self.sock.close()
        yield ACTED

    def _flush(self) -> Steps:
        if self._out.pending:
            yield from self._write(self._out.read())

    def _write(self, data: bytes) -> Steps:
        at = 0
        while at < len(data):
            try:
                at += self.sock.send(memoryview(data)[at:])
            except BlockingIOError:
                yield WAITS
        yield ACTED

    def _pull(self) -> bytes | None:
        """What is there now; b"": nothing; None: and never will be."""
        try:
            data = self.sock.recv(_ROOM)
        except BlockingIOError:
            return b""
        except ConnectionResetError:
            data = b""
        if not data:
            self.ended = True
            return None
        if self._tls is not None:
            self._in.write(data)
        return data

    def _read(self) -> int:
        """How many bytes have come so far."""
        data = self._pull()
        if self._tls is None:
            self._got += data or b""
            return len(self._got)
        while True:
            try:
                plain = self._tls.read(_ROOM)
            except ssl.SSLWantReadError:
                return len(self._got)
            if not plain:
                return len(self._got)
            self._got += plain


class Upstreams:
    """The listening sockets that the balancer forwards to."""

    def __init__(self, count: int) -> None:
        self._listening = [socket.create_server(("127.0.0.1", 0), backlog=64) for _ in range(count)]
        for one in self._listening:
            one.setblocking(False)
        self.addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in self._listening]
        self._accepted: list[socket.socket] = []

    def accept(self) -> Iterator[int]:
        """Waits for the balancer's connection; `taken` gives it out."""
        yield from until(self._look, "no connection to an upstream")

    def taken(self) -> Peer:
        return Peer(self._accepted.pop())

    def close(self) -> None:
        for one in self._listening:
            one.close()

    def _look(self) -> bool:
        for one in self._listening:
            try:
                sock, _ = one.accept()
            except BlockingIOError:
                continue
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._accepted.append(sock)
            return True
        return False


def connect(port: int, context: ssl.SSLContext | None) -> Peer:
    """Connected at once, which is loopback's way; the worker has not seen it yet."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Peer(sock, context)
