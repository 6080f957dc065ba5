"""Taking an accepted socket from its owner: checks, and who owns it when.

Until the hand-over has succeeded the socket is the caller's, whatever is raised. Afterwards it is the
engine's: a socket object has been detached, a descriptor number has been closed (the engine has a copy), so
neither can be handed over twice, not even by two threads at once.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_claims = threading.Lock()
_numbers: set[int] = set()  # on their way: by its number alone, a socket could be taken twice


class Handed:
    """A socket on its way to an engine.

    Attributes:
        fileno: the descriptor the engine gets.
    """

    def __init__(self, sock: socket.socket, number: int | None) -> None:
        self._sock = sock
        self._number = number
        self.fileno = sock.fileno()

    @contextmanager
    def claimed(self) -> Iterator[Handed]:
        """Nobody else can hand it over in this block; `gone` says in it that the engine has it.

        Raises:
            ValueError: somebody was faster.
        """
        with _claims:
            if self.fileno < 0 or self._sock.fileno() != self.fileno:
                raise ValueError("sock: it is closed, or was handed over before")
            yield self

    def gone(self) -> None:
        """The engine owns the descriptor now."""
        self._sock.detach()
        if self._number is not None:
            os.close(self._number)


@contextmanager
def handing_over(sock: socket.socket | int) -> Iterator[Handed]:
    """Checks a socket that is to be handed over.

    Raises:
        TypeError, ValueError, OSError: it is not a connected TCP socket.
    """
    if isinstance(sock, socket.socket):
        if isinstance(sock, ssl.SSLSocket):
            raise TypeError("sock: already speaks TLS in Python; submit the plain socket with tls=")
        if sock.fileno() < 0:
            raise ValueError("sock: it is closed, or was handed over before")
        _check(sock)
        yield Handed(sock, None)
        return
    if not isinstance(sock, int) or isinstance(sock, bool):
        raise TypeError(f"sock: a socket.socket or a descriptor number, not {type(sock).__name__}")
    if not 0 <= sock < 2**31:
        raise ValueError(f"sock: not a descriptor number: {sock}")
    with _alone(sock), _copy(sock) as copy:
        _check(copy)
        yield Handed(copy, sock)


@contextmanager
def _alone(number: int) -> Iterator[None]:
    with _claims:
        if number in _numbers:
            raise ValueError("sock: it is being handed over already")
        _numbers.add(number)
    try:
        yield
    finally:
        with _claims:
            _numbers.discard(number)


def _copy(number: int) -> socket.socket:
    try:
        duplicate = os.dup(number)
    except OSError as error:
        raise OSError(error.errno, f"sock: descriptor {number}: {error.strerror}") from None
    try:
        return socket.socket(fileno=duplicate)
    except OSError as error:
        os.close(duplicate)
        raise OSError(error.errno, f"sock: descriptor {number}: {error.strerror}") from None


def _check(sock: socket.socket) -> None:
    try:
        protocol = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
        listening = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        family = sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    except OSError as error:
        raise OSError(error.errno, f"sock: {error.strerror}") from None
    if family not in (socket.AF_INET, socket.AF_INET6) or protocol != socket.IPPROTO_TCP:
        raise ValueError("sock: not a TCP socket")
    if listening:
        raise ValueError("sock: it listens; submit what its accept() returns")
    try:
        sock.getpeername()
    except OSError as error:
        # A connection that was reset has no peer any more, but still its own port: that is not misuse.
        if error.errno != errno.ENOTCONN or sock.getsockname()[1] == 0:
            raise OSError(error.errno, f"sock: not connected: {error.strerror}") from None


def _forget_claims() -> None:
    """In a forked child: whoever held the lock does not exist here."""
    global _claims
    _claims = threading.Lock()
    _numbers.clear()


os.register_at_fork(after_in_child=_forget_claims)
