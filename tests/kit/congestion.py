"""How a socket sends, where a test depends on that."""

from __future__ import annotations

import socket

import pytest


def set_congestion_control(sock: socket.socket, name: str) -> None:
    """Skips the test where this kernel does not have it."""
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except (FileNotFoundError, PermissionError):
        pytest.skip(f"this kernel has no {name}")
