"""Clients: TLS over memory buffers, Python's own TLS sockets, and the programs people use.

`TlsClient` sees on the wire what a socket API hides: close_notify, a bare FIN, an alert and a reset are
four different ends.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from kit.sockets import End, read_exactly, read_to_end, reset
from kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from kit.pki import Identity, Pki

HOST = "127.0.0.1"
SOCKET_TIMEOUT = 20.0


def client_context(
    pki: Pki,
    identity: Identity | None,
    *,
    alpn: Sequence[str] = (),
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    weak: bool = False,
) -> ssl.SSLContext:
    """What a client of the balancer needs to know.

    Args:
        pki: whose CA it trusts.
        identity: what it presents, or None.
        alpn: protocols it offers.
        newest: the highest version it speaks.
        weak: let OpenSSL use keys that it finds too weak.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(pki.ca.cert)
    context.maximum_version = newest
    if weak:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if identity is not None:
        context.load_cert_chain(identity.cert, identity.key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class TlsClient:
    """TLS over memory buffers and a plain socket, step by step.

    Args:
        port: of the balancer.
        context: from `client_context`.
        receive_buffer: SO_RCVBUF, or None.
        segment: TCP_MAXSEG, or None; with a small one the balancer's kernel keeps little for this client.
    """

    def __init__(
        self,
        port: int,
        context: ssl.SSLContext,
        *,
        receive_buffer: int | None = None,
        segment: int | None = None,
    ) -> None:
        self.alert: str | None = None  # OpenSSL's name of the one that ended it
        self.sock = socket.socket()
        if receive_buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if segment is not None:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, segment)
        self.sock.settimeout(SOCKET_TIMEOUT)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        try:
            self.sock.connect((HOST, port))
        except BaseException:
            self.sock.close()
            raise

    @property
    def source(self) -> str:
        """Its address as a record names it."""
        host, port = self.sock.getsockname()
        return f"{host}:{port}"

    def handshake(self) -> Self:
        """Completes the handshake as a client sees it; the server may still refuse the certificate."""
        flight = self.last_flight()
        if flight:
            self.sock.sendall(flight)
        return self

    def last_flight(self) -> bytes:
        """Shakes hands up to the flight that completes it, which is not sent."""
        while True:
            try:
                self.tls.do_handshake()
                return self._outgoing.read()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()

    def first_flight(self) -> bytes:
        """The ClientHello, not sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        """`data` in records, not sent."""
        self.tls.write(data)
        return self._outgoing.read()

    def seal_close_notify(self) -> bytes:
        """What `send_close_notify` sends."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        """Encrypts and sends all of it."""
        view = memoryview(data)
        for start in range(0, len(view), 1 << 16):
            self.tls.write(view[start : start + (1 << 16)])
            self._flush()

    def send_close_notify(self) -> None:
        """Half-close: no more bytes from here, the other direction goes on."""
        sealed = self.seal_close_notify()
        if sealed:
            self.sock.sendall(sealed)

    def send_fin(self) -> None:
        """Ends TCP; without `send_close_notify` before it, a truncation."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanishes with a RST."""
        reset(self.sock)

    def receive(self, length: int) -> bytes:
        """Exactly that many bytes.

        Raises:
            AssertionError: the stream ended before.
        """
        data = bytearray()
        while len(data) < length:
            part = self._read(length - len(data))
            assert isinstance(part, bytes), f"ended with {part} after {len(data)} of {length} bytes"
            data += part
        return bytes(data)

    def receive_to_end(self) -> tuple[bytes, End]:
        """All there is, and how it ended."""
        data = bytearray()
        while True:
            part = self._read(1 << 16)
            if isinstance(part, End):
                return bytes(data), part
            data += part

    def echo(self, data: bytes) -> None:
        """Asserts that `data` comes back."""
        self.send(data)
        assert self.receive(len(data)) == data

    def receive_some(self, length: int) -> bytes | End:
        """Up to so many bytes when some are there, or how the stream ended."""
        return self._read(length)

    def is_served(self) -> bool:
        """Whether one byte comes back; if not, it was turned away for now, without an alert."""
        self.send(b"x")
        answer = self._read(1)
        assert answer in (b"x", End.CLOSE_NOTIFY), f"ended with {answer}"
        return answer == b"x"

    def close(self) -> None:
        """Ends as polite clients do, if it has not ended yet."""
        if self.sock.fileno() >= 0:
            with contextlib.suppress(OSError, ssl.SSLError):
                self.send_close_notify()
            self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, length: int) -> bytes | End:
        while True:
            try:
                return self.tls.read(length) or End.CLOSE_NOTIFY
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return End.CLOSE_NOTIFY
            except ssl.SSLError as error:
                self.alert = str(error.reason)
                return End.ALERT
            try:
                self._fill()
            except (ConnectionResetError, BrokenPipeError):
                return End.RESET
            except ssl.SSLEOFError:
                return End.FIN

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.sock.sendall(data)

    def _fill(self) -> None:
        data = self.sock.recv(1 << 18)
        if not data:
            raise ssl.SSLEOFError("FIN without close_notify")
        self._incoming.write(data)


def connect(pki: Pki, port: int, identity: Identity | None = None, *, alpn: Sequence[str] = ()) -> TlsClient:
    """A client, `alice` unless said otherwise, past its handshake."""
    client = TlsClient(port, client_context(pki, identity or pki.alice, alpn=alpn))
    try:
        return client.handshake()
    except BaseException:
        client.close()
        raise


def outcome(port: int, context: ssl.SSLContext) -> End:
    """Connects and waits for the end, as one who is going to be refused."""
    with TlsClient(port, context) as client:
        try:
            client.handshake()
        except (ConnectionResetError, BrokenPipeError):
            return End.RESET
        except ssl.SSLEOFError:
            return End.FIN
        except ssl.SSLError:
            return End.ALERT
        return client.receive_to_end()[1]


def plain(port: int, *, receive_buffer: int | None = None, source: str | None = None) -> socket.socket:
    """A TCP connection with a deadline on everything, from an address of loopback if one is given."""
    sock = socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(SOCKET_TIMEOUT)
    try:
        if source is not None:
            sock.bind((source, 0))
        sock.connect((HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock


class PlainClient:
    """A plaintext client that can do what a `TlsClient` can."""

    def __init__(self, port: int) -> None:
        self.sock = plain(port)

    @property
    def source(self) -> str:
        """Its address as a record names it."""
        host, port = self.sock.getsockname()
        return f"{host}:{port}"

    def echo(self, data: bytes) -> None:
        """Asserts that `data` comes back."""
        self.sock.sendall(data)
        assert read_exactly(self.sock, len(data)) == data

    def receive_to_end(self) -> tuple[bytes, End]:
        """All there is, and how it ended."""
        return read_to_end(self.sock)

    def is_served(self) -> bool:
        """Whether one byte comes back; if not, it was turned away."""
        try:
            self.sock.sendall(b"x")
            answer = self.sock.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            return False  # it spoke to a socket that was closed already
        assert answer in (b"x", b"")
        return answer == b"x"

    def reset(self) -> None:
        """Vanishes with a RST."""
        reset(self.sock)

    def close(self) -> None:
        """Ends, if it has not ended yet."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


Client = TlsClient | PlainClient


# ---- programs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """A program that has ended."""

    status: int
    output: str

    def __contains__(self, text: str) -> bool:
        return text in self.output


def s_client(
    program: str, port: int, *arguments: str, send: bytes = b"", script: Sequence[tuple[bytes, bytes]] = ()
) -> Finished:
    """Runs ``openssl s_client``.

    Args:
        program: its path.
        port: of the balancer.
        arguments: of the command.
        send: what it reads, and waits to see echoed; without it the server is expected to refuse.
        script: instead: what it reads, and the word that it then says once more before it reads on.
    """
    command = [program, "s_client", "-connect", f"{HOST}:{port}", *arguments]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    )
    output = bytearray()
    reader = threading.Thread(target=_collect, args=(process, output), daemon=True)
    reader.start()
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(send)
            if script:
                wait_until(lambda: b"Verify return code" in output, "it is connected")
            for part, word in script:
                said = output.count(word)
                process.stdin.write(part)
                wait_until(lambda: output.count(word) > said, f"it says {word!r}")  # noqa: B023
        if not script:
            # Until it has its echo, or has ended because it was refused.
            wait_until(
                lambda: process.poll() is not None or (send != b"" and send.strip() in output),
                "s_client gets an answer",
            )
        process.stdin.close()
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.wait()
        reader.join(PATIENCE)
        process.stdin.close()
    return Finished(process.returncode, output.decode(errors="replace"))


def _collect(process: subprocess.Popen[bytes], output: bytearray) -> None:
    assert process.stdout is not None
    with process.stdout as stream:
        while part := stream.read(65536):
            output += part


def curl(program: str, pki: Pki, url: str, identity: Identity | None, *arguments: str) -> Finished:
    """Runs ``curl`` as that client."""
    command = [program, "-sS", "--max-time", "10", "--cacert", str(pki.ca.cert)]
    if identity is not None:
        command += ["--cert", str(identity.cert), "--key", str(identity.key)]
    result = subprocess.run([*command, *arguments, url], capture_output=True, timeout=20, check=False)
    return Finished(result.returncode, (result.stdout + result.stderr).decode(errors="replace"))




__all__ = [
    "Client",
    "Finished",
    "PlainClient",
    "TlsClient",
    "client_context",
    "connect",
    "curl",
    "outcome",
    "plain",
    "read_exactly",
    "read_to_end",
    "s_client",
]
