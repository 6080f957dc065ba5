"""A relay that does to TCP what networks and bad peers do, at the same byte every time.

It stands between a client and the balancer, or between the balancer and an upstream. `Faults` says what
befalls the bytes of one direction; without any, bytes, ends and resets are passed on as they come.

    proxy = keep(FaultyProxy(lb.port, up=Faults(segment=1), down=Faults(end_after=100, ending=Ending.CUT)))
    client = TlsClient(proxy.port, context)

Offsets count all bytes of a direction, the handshake's too. One thread serves all connections of a proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from types import TracebackType
from typing import NoReturn, Self

from kit.sockets import reset
from kit.waiting import PATIENCE, wait_until

HOST = "127.0.0.1"
_READ_MAX = 1 << 16
#: Seconds between two looks at what the kernel still holds.
_LOOK_AGAIN = 0.0005
_SIOCOUTQNSD = 0x894B  # linux/sockios.h


class Ending(Enum):
    """How a connection ends in the middle of its bytes."""

    HALF_CLOSE = auto()  # FIN to the receiver; the other direction goes on
    CUT = auto()  # FIN to both
    RESET = auto()  # RST to both
    RESET_RECEIVER = auto()  # RST to the receiver; the sender hears nothing more
    RESET_SENDER = auto()  # RST to the sender; the receiver hears nothing more


@dataclass(frozen=True)
class Faults:
    """What befalls the bytes of one direction, all of it at once if so wanted.

    Attributes:
        segment: they go on in TCP segments of at most so many bytes.
        pause: seconds after each segment; no more than one is read ahead, which makes a slow reader.
        flip: offset of a byte whose bits are inverted.
        stall: bytes after which nothing is read until `FaultyProxy.release`.
        end_after: bytes after which, once they have arrived, the `ending` comes; None: never.
        ending: of the connection.
    """

    segment: int | None = None
    pause: float = 0.0
    flip: int | None = None
    stall: int | None = None
    end_after: int | None = None
    ending: Ending = Ending.RESET


NONE = Faults()


class _Ended(Exception):
    """It is time for a direction's ending."""

    def __init__(self, direction: Direction) -> None:
        self.direction = direction


class Direction:
    """The way from one socket of a link to the other one.

    Attributes:
        source, target: the sockets.
        faults: what befalls its bytes.
        passed: bytes that have gone on.
        stalled: whether it waits to be released.
    """

    def __init__(self, source: socket.socket, target: socket.socket, faults: Faults) -> None:
        self.source = source
        self.target = target
        self.faults = faults
        self.passed = 0
        self.stalled = False

    async def carry(self, released: asyncio.Event) -> None:
        """Passes on everything up to the source's end.

        Raises:
            _Ended: the ending comes before that.
            OSError: one of the two was reset.
        """
        await self._meet_faults(released)
        while data := await self._read():
            while data:
                length = min(len(data), self.faults.segment or len(data), self._before_next_fault())
                await asyncio.get_running_loop().sock_sendall(self.target, data[:length])
                data = data[length:]
                self.passed += length
                await asyncio.sleep(self.faults.pause)
                if self.faults.segment:
                    await _until_none(
                        _unsent, self.target
                    )  # the kernel would put the next one into the same segment
                await self._meet_faults(released)
        self.target.shutdown(socket.SHUT_WR)

    async def _read(self) -> bytes:
        size = self.faults.segment if self.faults.pause and self.faults.segment else _READ_MAX
        data = await asyncio.get_running_loop().sock_recv(self.source, size)
        if self.faults.flip is not None and 0 <= (at := self.faults.flip - self.passed) < len(data):
            data = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        return data

    def _before_next_fault(self) -> int:
        """How many bytes may go on until then."""
        places = (self.faults.stall, self.faults.end_after)
        ahead = [place - self.passed for place in places if place is not None and place > self.passed]
        return min(ahead, default=_READ_MAX)

    async def _meet_faults(self, released: asyncio.Event) -> None:
        if self.passed == self.faults.stall:
            self.stalled = True
            await released.wait()
            self.stalled = False
        if self.passed == self.faults.end_after:
            await _until_none(_unacknowledged, self.target)  # a reset would destroy what is still under way
            raise _Ended(self)


class Link:
    """One connection through a proxy.

    Attributes:
        up: from the one who connected.
        down: to it.
        ended: when a fault ended it, on the monotonic clock; None: none has.
    """

    def __init__(self, client: socket.socket, server: socket.socket, up: Faults, down: Faults) -> None:
        self.up = Direction(client, server, up)
        self.down = Direction(server, client, down)
        self.ended: float | None = None

    async def run(self, released: asyncio.Event) -> None:
        """Until both ends have ended, whatever the way."""
        client, server = self.up.source, self.up.target
        try:
            async with asyncio.TaskGroup() as both:
                for direction in (self.up, self.down):
                    both.create_task(self._carry(direction, released))
        except* _Ended as reached:
            first = reached.exceptions[0]
            assert isinstance(first, _Ended)
            await self._end(first.direction)
        except* OSError:
            _abort(client)
            _abort(server)
        finally:
            client.close()
            server.close()

    async def _carry(self, direction: Direction, released: asyncio.Event) -> None:
        try:
            await direction.carry(released)
        except _Ended:
            if direction.faults.ending is not Ending.HALF_CLOSE:
                raise
            self.ended = time.monotonic()
            direction.target.shutdown(socket.SHUT_WR)
            await _discard(direction.source)

    async def _end(self, direction: Direction) -> None:
        ends = (direction.source, direction.target)
        aborted = {
            Ending.RESET: ends,
            Ending.RESET_SENDER: ends[:1],
            Ending.RESET_RECEIVER: ends[1:],
        }.get(direction.faults.ending, ())
        self.ended = time.monotonic()
        for sock in aborted:
            _abort(sock)
        with contextlib.suppress(OSError):  # an end that comes by itself meanwhile is none of ours any more
            for sock in ends:
                if direction.faults.ending is Ending.CUT:
                    sock.shutdown(socket.SHUT_WR)
            for sock in ends:
                if sock not in aborted:
                    await _discard(sock)


class FaultyProxy:
    """Relays connections to a port of loopback.

    Args:
        to: that port.
        up: what befalls the bytes of whoever connects.
        down: what befalls the bytes back.
        receive_buffer: SO_RCVBUF of all its sockets, or None.

    Attributes:
        port, address: of its own.
        links: connections so far.
    """

    def __init__(
        self, to: int, *, up: Faults = NONE, down: Faults = NONE, receive_buffer: int | None = None
    ) -> None:
        self._to = to
        self._faults = up, down
        self._receive_buffer = receive_buffer
        self._listener = self._socket()
        self._listener.bind((HOST, 0))
        self._listener.listen(1024)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"{HOST}:{self.port}"
        self.links: list[Link] = []
        self._released = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._serving = self._loop.create_task(self._serve())
        self._thread = threading.Thread(target=self._run, name="faulty-proxy", daemon=True)
        self._thread.start()

    def link(self, number: int = 0) -> Link:
        """A connection by the order of accept, when it is there."""
        wait_until(lambda: len(self.links) > number, f"connection {number} at the proxy")
        return self.links[number]

    def release(self) -> None:
        """Whatever stalls, now or later, goes on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def close(self) -> None:
        """Ends it, its port and every connection."""
        self._loop.call_soon_threadsafe(self._serving.cancel)
        self._thread.join(PATIENCE)
        self._loop.close()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _socket(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        return sock

    def _run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serving)

    async def _serve(self) -> NoReturn:
        async with asyncio.TaskGroup() as links:
            while True:
                client, _ = await self._loop.sock_accept(self._listener)
                links.create_task(self._relay(client))

    async def _relay(self, client: socket.socket) -> None:
        server = self._socket()
        try:
            await self._loop.sock_connect(server, (HOST, self._to))
        except OSError:
            server.close()
            reset(client)
            return
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(client, server, *self._faults)
        self.links.append(link)
        await link.run(self._released)


def _abort(sock: socket.socket) -> None:
    """Resets it, unless it is closed."""
    if sock.fileno() >= 0:
        reset(sock)


async def _discard(sock: socket.socket) -> None:
    """Reads to the end."""
    while await asyncio.get_running_loop().sock_recv(sock, _READ_MAX):
        pass


async def _until_none(count: Callable[[socket.socket], int], sock: socket.socket) -> None:
    while count(sock):
        await asyncio.sleep(_LOOK_AGAIN)


def _unacknowledged(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged."""
    return _queued(sock, termios.TIOCOUTQ)


def _unsent(sock: socket.socket) -> int:
    """Bytes that are not even sent."""
    return _queued(sock, _SIOCOUTQNSD)


def _queued(sock: socket.socket, request: int) -> int:
    [count] = struct.unpack("i", fcntl.ioctl(sock, request, bytes(4)))
    return int(count)


__all__ = ["Direction", "Ending", "Faults", "FaultyProxy", "Link"]
