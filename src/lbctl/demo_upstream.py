"""An upstream for the demo: HTTP/1.1, one answer for each connection, greeting the client by name.

A layer-4 upstream cannot know the client. This one runs in the balancer's process and asks the engine
whose connection has the peer's port; real upstreams learn it through the PROXY protocol.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lbctl.config.values import split_address
from lbctl.errors import LbctlError
from lbctl.logs.records import serial_text

if TYPE_CHECKING:
    from lbcore.stats import OpenConnection

Connections = Callable[[], "list[OpenConnection]"]

_THREADS = 16  # connections served at once
_WAITING = 64  # accepted and not served yet; the rest is turned away
_PATIENCE = 5.0  # seconds a client may take for one step
_REQUEST_MAX = 16384  # bytes of a request's head


class DemoUpstream:
    """Listens on an address, or on another port of the same host when that one is taken.

    Attributes:
        address: the one in force.

    Enter to serve, leave to stop.

    Raises:
        LbctlError: neither port can be opened.
    """

    def __init__(self, address: str) -> None:
        host, port = split_address(address)
        self._listener = _listen(str(host), port)
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._connections: Connections = list
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="demo-upstream")
        self._stopping = threading.Event()
        self._room = threading.BoundedSemaphore(_THREADS + _WAITING)
        self._accepting = threading.Thread(target=self._accept, name=f"demo {self.address}", daemon=True)

    def __enter__(self) -> Self:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._accepting.join()
        self._listener.close()
        self._pool.shutdown(cancel_futures=True)

    def ask_about_clients(self, connections: Connections) -> None:
        """From now on `connections()` says who is who (`lbcore.Engine.connections`)."""
        self._connections = connections

    def _accept(self) -> None:
        while not self._stopping.is_set():
            try:
                sock, (host, port) = self._listener.accept()
            except OSError:  # shut down, or out of descriptors
                self._stopping.wait(0.1)
                continue
            if not self._room.acquire(blocking=False):
                sock.close()
                continue
            self._pool.submit(self._serve, sock, f"{host}:{port}")

    def _serve(self, sock: socket.socket, peer: str) -> None:
        try:
            with sock, contextlib.suppress(OSError):  # whatever the client does is its own affair
                sock.settimeout(_PATIENCE)
                request = _read_head(sock)
                if request is not None:
                    sock.sendall(self._answer(request, peer))
                    _end(sock)
        finally:
            self._room.release()

    def _answer(self, request: bytes, peer: str) -> bytes:
        method, _, rest = request.partition(b" ")
        if b" HTTP/1." not in rest:
            return _response("400 Bad Request", "this is not HTTP/1.1\n")
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", "GET only\n", "Allow: GET, HEAD\r\n")
        body = f"hello {self._who(peer)} from upstream {self.address}\n"
        return _response("200 OK", body, head=method == b"HEAD")

    def _who(self, peer: str) -> str:
        for connection in self._connections():
            if connection["upstream_local"] == peer and connection["upstream"] == self.address:
                return f"{connection['client']} (serial {serial_text(connection['serial'])})"
        return "stranger"


def _listen(host: str, port: int) -> socket.socket:
    for wanted in (port, 0):
        try:
            return socket.create_server((host, wanted))
        except OSError as error:
            failure = error
    raise LbctlError(f"the demo's upstream cannot listen on {host}: {failure.strerror}")


def _read_head(sock: socket.socket) -> bytes | None:
    """The first line of a request whose head came in full, else None."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = sock.recv(4096)
        if not part or len(data) > _REQUEST_MAX:
            return None
        data += part
    return data.partition(b"\r\n")[0]


def _response(status: str, body: str, headers: str = "", *, head: bool = False) -> bytes:
    text = body.encode()
    start = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n{headers}"
        f"Content-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    return start.encode() + (b"" if head else text)


def _end(sock: socket.socket) -> None:
    """Ends our side and reads what the client still sends: closing with bytes unread would be a reset,
    and destroy the answer."""
    sock.shutdown(socket.SHUT_WR)
    left = 1 << 20
    while left > 0 and (part := sock.recv(65536)):
        left -= len(part)
