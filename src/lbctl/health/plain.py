"""A connection without TLS, on a loop. Every wait ends with the task that waits."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket

_DRAIN, _DRAINS_MAX = 16384, 16  # bytes, reads


def open_socket(family: socket.AddressFamily) -> socket.socket:
    """A socket to connect. Raises OSError."""
    return socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


async def connect(sock: socket.socket, address: tuple[str, int] | bytes) -> None:
    """Connects.

    Not `loop.sock_connect`: that takes the EAGAIN of a unix socket, whose queue is full, for a connection
    under way, and what came of it for a success.

    Raises:
        OSError: it failed.
    """
    code = sock.connect_ex(address)
    if code == errno.EINPROGRESS:
        await _writable(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code == 0 and _is_with_itself(sock, address):
        code = errno.ECONNREFUSED
    if code != 0:
        raise OSError(code, os.strerror(code))


def _is_with_itself(sock: socket.socket, address: tuple[str, int] | bytes) -> bool:
    """Where nobody listens on a port of this machine, the kernel may choose that very port for our end, and
    connect the socket with itself."""
    if sock.family == socket.AF_UNIX:
        return False
    return bool(sock.getsockname()[:2] == address)


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    number = sock.fileno()  # asyncio, given the socket, spells it out in vain, twice
    loop.add_writer(number, _wake, ready)
    try:
        await ready
    finally:
        loop.remove_writer(number)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():  # else it was cancelled in this very round
        ready.set_result(None)


def close(sock: socket.socket) -> None:
    """Closes it, with an ordinary end as far as that is possible: bytes that were not read would make it a
    reset."""
    with contextlib.suppress(OSError):
        for _ in range(_DRAINS_MAX):
            if not sock.recv(_DRAIN):
                break
    sock.close()


class Plain:
    """A connected socket.

    Args:
        sock: it; whoever made it closes it.

    Thread-safety: the loop's thread only.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        """Sends all of it. Raises OSError."""
        await self._loop.sock_sendall(self._sock, data)

    async def receive(self, size: int) -> bytes:
        """Some bytes, at most so many; none: the end. Raises OSError."""
        return await self._loop.sock_recv(self._sock, size)
