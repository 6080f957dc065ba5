"""Small things about plain sockets."""

from __future__ import annotations

import socket
import struct
from enum import StrEnum


class End(StrEnum):
    """How a stream ended, as its reader saw it."""

    CLOSE_NOTIFY = "close_notify"
    FIN = "fin"
    RESET = "reset"
    ALERT = "alert"


def reset(sock: socket.socket) -> None:
    """Closes with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_exactly(sock: socket.socket, length: int) -> bytes:
    """That many bytes.

    Raises:
        AssertionError: the stream ended before.
    """
    parts: list[bytes] = []
    left = length
    while left > 0:
        part = sock.recv(min(left, 1 << 18))
        assert part, f"the stream ended {left} of {length} bytes early"
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def read_to_end(sock: socket.socket) -> tuple[bytes, End]:
    """All there is, and how it ended."""
    parts: list[bytes] = []
    while True:
        try:
            part = sock.recv(1 << 18)
        except (ConnectionResetError, BrokenPipeError):
            return b"".join(parts), End.RESET
        if not part:
            return b"".join(parts), End.FIN
        parts.append(part)
