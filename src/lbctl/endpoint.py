"""One request over HTTPS, within a deadline, whatever the other side does.

`http.client` bounds each wait, not their sum: a server that sends one byte a second would hold it for
hours. So the socket here knows when the whole exchange has to be over, and how much may arrive.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from lbctl.config.web_url import WebUrl
from lbctl.interrupt import Interrupt, Interrupted

BODY_MAX = 16 * 1024  # bytes
ANSWER_MAX = 64 * 1024  # bytes, with the head


class EndpointFailed(Exception):
    """No answer that could be read; the text says why, the same words for the same cause."""


class Response(NamedTuple):
    """An answer.

    Attributes:
        status: of HTTP.
        body: read for status 200 only, and not of what was posted.
    """

    status: int
    body: bytes


class Endpoint:
    """A server that answers, one connection for each request.

    TLS is verified with the host's name; redirects are not followed, proxies not used, and no address
    beyond those of the URL is connected to.

    Args:
        url: where.
        ca: the CA certificates its own must come from; None: those of the system.
        cert, key: what we show it, or None.
        timeout: seconds for an exchange, from the look-up of the name to the last byte.

    Thread-safety: `get` and `post` may be called from many threads at once.

    Raises:
        OSError: a file cannot be read, or is not what it should be (`ssl.SSLError`).
    """

    def __init__(
        self, url: WebUrl, *, ca: Path | None, cert: Path | None, key: Path | None, timeout: float
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._context: ssl.SSLContext | None = None
        if url.secure:
            self._context = ssl.create_default_context(cafile=ca)
            if cert is not None:
                # The empty password: without one OpenSSL would ask the terminal.
                self._context.load_cert_chain(cert, key, password="")

    def get(self, target: str) -> Response:
        """Asks once.

        Args:
            target: path and query.

        Raises:
            EndpointFailed: no whole answer in time.
        """
        return self._request("GET", target, None, Interrupt())

    def post(self, target: str, body: bytes, interrupt: Interrupt | None = None) -> Response:
        """Sends a JSON document once; of the answer only the status is read.

        Args:
            target: path and query.
            body: the document.
            interrupt: gives it up from another thread.

        Raises:
            EndpointFailed: no answer in time.
        """
        return self._request("POST", target, body, interrupt or Interrupt())

    def _request(self, method: str, target: str, body: bytes | None, interrupt: Interrupt) -> Response:
        deadline = _Deadline(self._timeout)
        try:
            with (
                self._connect(deadline, interrupt) as plain,
                self._secured(plain) as sock,
                interrupt.ending(partial(_shut_down, sock)),
            ):
                if isinstance(sock, ssl.SSLSocket):
                    sock.settimeout(deadline.left())
                    sock.do_handshake()
                return self._exchange(_Limited(sock, deadline), method, target, body)
        except Interrupted:
            raise EndpointFailed("given up") from None
        except TimeoutError:
            raise EndpointFailed(f"no answer within {self._timeout:g} s") from None
        except ssl.SSLCertVerificationError as error:
            raise EndpointFailed(f"its certificate is not accepted: {error.verify_message}") from None
        except http.client.RemoteDisconnected:
            raise EndpointFailed("it closed the connection without an answer") from None
        except OSError as error:
            raise EndpointFailed(error.strerror or str(error) or type(error).__name__) from None
        except (http.client.HTTPException, ValueError) as error:
            raise EndpointFailed(f"no valid HTTP ({type(error).__name__})") from None

    def _connect(self, deadline: _Deadline, interrupt: Interrupt) -> socket.socket:
        addresses = _resolve(self._url.host, self._url.port, deadline, interrupt)
        for place, address in enumerate(addresses):
            left = len(addresses) - place  # one that does not answer must not use up all the time
            try:
                return _connected(address, deadline.left() / left, interrupt)
            except OSError:
                if left == 1:
                    raise
        raise EndpointFailed("the host's name has no address")

    def _secured(self, plain: socket.socket) -> socket.socket:
        """The socket with TLS, before the handshake; the same one where there is none."""
        if self._context is None:
            return plain
        return self._context.wrap_socket(plain, server_hostname=self._url.host, do_handshake_on_connect=False)

    def _exchange(self, sock: _Limited, method: str, target: str, body: bytes | None) -> Response:
        connection = http.client.HTTPConnection(self._url.host, self._url.port)
        connection.sock = sock
        headers = {
            "Host": self._url.authority,
            "Accept": "application/json",
            "User-Agent": "lbctl",
            "Connection": "close",
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        wanted = method == "GET" and response.status == http.client.OK
        return Response(response.status, _read_body(response) if wanted else b"")


def _read_body(response: http.client.HTTPResponse) -> bytes:
    body = response.read(BODY_MAX + 1)
    if len(body) > BODY_MAX:
        raise EndpointFailed(f"more than {BODY_MAX // 1024} KiB")
    if response.length:
        raise EndpointFailed("the answer was cut off")
    return body


class _Deadline:
    """When it has to be over, monotonic."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then.

        Raises:
            TimeoutError: none.
        """
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Limited(io.RawIOBase):
    """A socket as `http.client` uses one, which ends by a deadline and after so many bytes."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline
        self._room = ANSWER_MAX

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._deadline.left())
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, 4096)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._room <= 0:
            raise EndpointFailed(f"more than {ANSWER_MAX // 1024} KiB")
        self._sock.settimeout(self._deadline.left())
        count = self._sock.recv_into(buffer, min(len(buffer), self._room))
        self._room -= count
        return count

    def close(self) -> None:
        """Whoever made the socket closes it: `http.client` does so before it has read all."""


def _shut_down(sock: socket.socket) -> None:
    """Makes whoever waits for it go on, with an error or an end."""
    with contextlib.suppress(OSError):  # it is over already
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # that of TLS forgets its state under the reader


def _connected(address: tuple[str, int], timeout: float, interrupt: Interrupt) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        with interrupt.ending(partial(_shut_down, sock)):
            sock.settimeout(timeout)
            sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _resolve(host: str, port: int, deadline: _Deadline, interrupt: Interrupt) -> list[tuple[str, int]]:
    """The addresses of a name, by the system's resolver, which cannot be interrupted and has its own
    ideas of patience: it is left behind on a thread of its own."""
    try:
        return [(str(ipaddress.ip_address(host)), port)]
    except ValueError:
        pass
    found: list[Any] = []
    done = threading.Event()

    def resolve() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            found.append(error)
        finally:
            done.set()

    threading.Thread(target=resolve, name="lbctl-resolve", daemon=True).start()
    with interrupt.ending(done.set):
        done.wait(deadline.left())
    if not found:
        raise TimeoutError
    if isinstance(found[0], Exception):
        raise EndpointFailed(f"the host's name cannot be resolved: {getattr(found[0], 'strerror', None)}")
    return [(sockaddr[0], sockaddr[1]) for *_, sockaddr in found[0]]
