"""A client store, or a webhook, for tests: real HTTP, over real TLS if wanted, that can also misbehave."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from kit.pki import Identity, Pki

#: Writes what is to be answered to the request in hand.
Answer = Callable[["Request"], None]


class Request(BaseHTTPRequestHandler):
    """One request; the server's `answer` has it written."""

    server: StoreServer

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append(self.path.rpartition("/")[2])
            self.server.headers.append(dict(self.headers.items()))
        with contextlib.suppress(OSError):  # whoever asked did not wait
            self.server.answer(self)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.posted.append(body)
            self.server.headers.append(dict(self.headers.items()))
        with contextlib.suppress(OSError):  # whoever sent it did not wait
            self.server.answer(self)

    def send(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr."""


class StoreServer(ThreadingHTTPServer):
    """Answers from `records`, or as `answer` says.

    Args:
        pki: whose CA issued its certificate; None: plain HTTP.
        server: its identity; that of the pki by default, for localhost and loopback addresses.
        demands: a client certificate of the pki's CA.

    Attributes:
        records: serial in upper-case hexadecimal to what is answered.
        answer: may be replaced while it runs.
        asked: the serials asked about, in their order.
        posted: the bodies that were sent, in their order.
        headers: of all requests.
        gate: `hang` waits for it.
    """

    daemon_threads = True
    block_on_close = True

    def __init__(
        self, pki: Pki | None = None, *, server: Identity | None = None, demands: bool = False
    ) -> None:
        self.records: dict[str, Any] = {}
        self.answer: Answer = self.look_up
        self.asked: list[str] = []
        self.posted: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self._context: ssl.SSLContext | None = None
        if pki is not None:
            own = server or pki.server
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(own.cert, own.key)
            if demands:
                self._context.load_verify_locations(pki.ca.cert)
                self._context.verify_mode = ssl.CERT_REQUIRED
        super().__init__(("127.0.0.1", 0), Request)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """As the configuration has it."""
        scheme = "http" if self._context is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/v1/serials/{{serial}}"

    def look_up(self, request: Request) -> None:
        """From `records`, 404 for anybody else."""
        record = self.records.get(request.path.rpartition("/")[2])
        if record is None:
            request.send(404)
        else:
            request.send(200, json.dumps(record).encode())

    def hang(self, request: Request) -> None:
        """Says nothing until the gate opens, or the end."""
        self.gate.wait()
        self.look_up(request)

    def close(self) -> None:
        """Ends it and everything under way."""
        self.gate.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """The handshake here, on the request's own thread."""
        if self._context is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(20)
        with self._context.wrap_socket(request, server_side=True) as tls:
            super().finish_request(tls, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that turns away is what some tests are about."""


def unused_port() -> int:
    """A port of loopback where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
