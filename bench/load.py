"""The load: processes of blocking clients that count their work and check every byte they get.

A driver is one process. It prepares (connects, warms up), works when it is told to, and holds its
connections until it is told to finish, so that what is measured is bounded exactly. Anything that
goes wrong in it ends the whole run: a number from work that failed in part would mean nothing.

    connect -> Ready | go -> work -> units | finish -> close
"""

from __future__ import annotations

import multiprocessing
import socket
import ssl
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Protocol

from .certificates import KeyPair

_ANSWER_WITHIN = 120.0  # seconds a driver may need beyond its working time before it counts as hung
_PIECE = 1 << 18
_TRANSFER = 1 << 25
_WARM_UP = 5  # connections, or echoes


class LoadFailed(Exception):
    """A driver met something that makes the whole measurement worthless."""


@dataclass(frozen=True)
class Target:
    """Where to connect, and as whom.

    Attributes:
        port: on loopback.
        client: certificate to present; None: plain TCP.
        ca: verifies the server. None: the server is not verified, which saves the load's CPU.
    """

    port: int
    client: KeyPair | None = None
    ca: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """The TLS context for this target, made once per driver; None for plain TCP."""
        if self.client is None:
            return None
        return tls_context(self.client, self.ca)

    def connect(self, context: ssl.SSLContext | None) -> socket.socket:
        """A connected socket; for TLS the handshake is done (the server's verdict is not yet known)."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            return sock
        return context.wrap_socket(sock, server_hostname="localhost")


def tls_context(client: KeyPair | None, ca: Path | None) -> ssl.SSLContext:
    """A TLS 1.3 client that presents `client` and verifies the server against `ca` if given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(ca)
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context


def message(size: int) -> bytes:
    """An echo request of exactly `size` bytes."""
    return b"echo ".ljust(size - 1, b"x") + b"\n"


def echo(sock: socket.socket, payload: bytes) -> None:
    """Sends `payload` and checks that the same comes back.

    Raises:
        LoadFailed: something else came, or the connection ended.
    """
    sock.sendall(payload)
    expect(sock, payload)


def expect(sock: socket.socket, payload: bytes) -> None:
    """Reads as many bytes as `payload` has and compares them.

    Raises:
        LoadFailed: something else came, or the connection ended.
    """
    got = sock.recv(len(payload))
    while len(got) < len(payload):
        more = sock.recv(len(payload) - len(got))
        if not more:
            raise LoadFailed(f"the connection ended after {len(got)} of {len(payload)} bytes of an echo")
        got += more
    if got != payload:
        raise LoadFailed(f"echo returned other bytes: {got[:40]!r} instead of {payload[:40]!r}")


def end(sock: socket.socket) -> None:
    """An orderly end, waited for: ours first, then the proxy's."""
    if isinstance(sock, ssl.SSLSocket):
        try:
            sock = sock.unwrap()  # close_notify both ways
        except ssl.SSLEOFError:  # nginx answers with the end of TCP alone
            sock.close()
            return
    sock.shutdown(socket.SHUT_WR)
    if sock.recv(1):
        raise LoadFailed("bytes after the end of an echo")
    sock.close()


class Driver(Protocol):
    """One process of load."""

    def prepare(self) -> None:
        """Everything that is not measured: connections that are to be open, warm-up."""

    def work(self) -> int:
        """What is measured; returns how many units of it were done."""

    def finish(self) -> None:
        """Ends what is still open, in order."""


class NewConnections:
    """Connects, echoes once and ends, over and over."""

    def __init__(self, target: Target, seconds: float, size: int) -> None:
        self._target = target
        self._seconds = seconds
        self._payload = message(size)
        self._context: ssl.SSLContext | None = None

    def prepare(self) -> None:
        self._context = self._target.context()
        for _ in range(_WARM_UP):
            self._once()

    def work(self) -> int:
        count = 0
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            self._once()
            count += 1
        return count

    def finish(self) -> None:
        """Every connection has ended already."""

    def _once(self) -> None:
        sock = self._target.connect(self._context)
        echo(sock, self._payload)
        end(sock)


class OpenEchoes:
    """Echoes on connections that stay open: one request on each, then the answer of each."""

    def __init__(self, target: Target, connections: int, seconds: float, size: int) -> None:
        self._target = target
        self._count = connections
        self._seconds = seconds
        self._payload = message(size)
        self._open: list[socket.socket] = []

    def prepare(self) -> None:
        context = self._target.context()
        self._open = [self._target.connect(context) for _ in range(self._count)]
        for _ in range(_WARM_UP):
            self._round()

    def work(self) -> int:
        count = 0
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            self._round()
            count += self._count
        return count

    def finish(self) -> None:
        for sock in self._open:
            end(sock)

    def _round(self) -> None:
        for sock in self._open:
            sock.sendall(self._payload)
        for sock in self._open:
            expect(sock, self._payload)


class Hold:
    """Opens connections, proves each by an echo and keeps it open, idle."""

    def __init__(self, target: Target, before: int, more: int) -> None:
        self._target = target
        self._before = before
        self._more = more
        self._context: ssl.SSLContext | None = None
        self._open: list[socket.socket] = []

    def prepare(self) -> None:
        self._context = self._target.context()
        self._add(self._before)

    def work(self) -> int:
        self._add(self._more)
        return self._more

    def finish(self) -> None:
        for sock in self._open:
            end(sock)

    def _add(self, count: int) -> None:
        payload = message(64)
        for _ in range(count):
            sock = self._target.connect(self._context)
            echo(sock, payload)
            self._open.append(sock)


class _Bulk(ABC):
    """Transfers on one open connection, back to back, for some time as warm-up and as work.

    The warm-up is long because a bulk transfer has a start of its own: until the kernel has grown
    its windows and the proxy has noticed that this is bulk, a gigabyte costs up to four times more.
    """

    def __init__(self, target: Target, warm_up: float, seconds: float) -> None:
        self._target = target
        self._warm_up = warm_up
        self._seconds = seconds
        self._scratch = bytearray(_PIECE)
        self._open: list[socket.socket] = []

    def prepare(self) -> None:
        self._open = [self._target.connect(self._target.context())]
        self._transfers(self._warm_up)

    def work(self) -> int:
        return self._transfers(self._seconds)

    def finish(self) -> None:
        for sock in self._open:
            end(sock)

    def _transfers(self, seconds: float) -> int:
        total = 0
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for sock in self._open:
                self._transfer(sock, _TRANSFER)
                total += _TRANSFER
        return total

    @abstractmethod
    def _transfer(self, sock: socket.socket, size: int) -> None:
        """Moves that many bytes over an open connection."""


class Download(_Bulk):
    """Takes bytes from the source as fast as they come. Plain bytes are counted without a copy."""

    def _transfer(self, sock: socket.socket, size: int) -> None:
        sock.sendall(b"source %d\n" % size)
        flags = 0 if isinstance(sock, ssl.SSLSocket) else socket.MSG_TRUNC
        left = size
        while left:
            got = sock.recv_into(self._scratch, min(left, len(self._scratch)), flags)
            if not got:
                raise LoadFailed(f"the download ended {left} bytes early")
            left -= got


class Upload(_Bulk):
    """Sends bytes to the sink until it has reported all of them."""

    def _transfer(self, sock: socket.socket, size: int) -> None:
        sock.sendall(b"sink %d\n" % size)
        piece = memoryview(self._scratch)
        left = size
        while left:
            left -= sock.send(piece[: min(left, len(piece))])
        expect(sock, b"%d\n" % size)


class Load:
    """Drivers running in processes of their own; ended on exit, whatever happened.

    Raises (all of its methods): LoadFailed with the driver's own words.
    """

    def __init__(self, drivers: Sequence[Driver]) -> None:
        self._drivers = drivers
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._pipes: list[Connection] = []

    def __enter__(self) -> Load:
        fork = multiprocessing.get_context("fork")
        for driver in self._drivers:
            ours, theirs = fork.Pipe()
            process = fork.Process(target=_run, args=(driver, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        try:
            self._answers()  # everybody is connected and warm
        except LoadFailed:
            self._stop()
            raise
        return self

    def work(self) -> int:
        """Lets all drivers work once and returns the units they did together."""
        self._tell()
        return sum(self._answers())

    def finish(self) -> None:
        """Ends all connections in order and waits for it."""
        self._tell()
        self._answers()

    def _tell(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)

    def _answers(self) -> list[int]:
        return [_answer(pipe) for pipe in self._pipes]

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
            process.join()
            process.close()
        for pipe in self._pipes:
            pipe.close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def _run(driver: Driver, pipe: Connection) -> None:
    """One driver's life in its process: an int after each stage, or the words of its failure."""
    try:
        driver.prepare()
        pipe.send(0)
        pipe.recv()
        pipe.send(driver.work())
        pipe.recv()
        driver.finish()
        pipe.send(0)
    except LoadFailed as failure:
        pipe.send(str(failure))
    except OSError as failure:
        stage = traceback.extract_tb(failure.__traceback__)[-1].name
        pipe.send(f"{type(failure).__name__} in {stage}: {failure}")


def _answer(pipe: Connection) -> int:
    if not pipe.poll(_ANSWER_WITHIN):
        raise LoadFailed(f"no answer for {_ANSWER_WITHIN:.0f} s: bytes were lost, or the proxy hangs")
    try:
        answer = pipe.recv()
    except EOFError:
        raise LoadFailed("a load process died") from None
    if isinstance(answer, str):
        raise LoadFailed(answer)
    return int(answer)
