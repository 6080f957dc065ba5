"""A connection with TLS, on a loop.

TLS runs on memory and not on the socket: what it has to say goes out in as few segments as possible, and an
end of TLS, an end of TCP and a reset stay apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar

from lbctl.health.failures import CheckFailed, of_tls

T = TypeVar("T")

_READ = 16384  # bytes; about a record
#: Bytes that an upstream may send besides those of the answer. A chain of certificates has a few thousand,
#: and OpenSSL takes 100 KiB; somebody who sends without an end shall not keep this thread busy.
_OVERHEAD_MAX = 256 * 1024
_RECORD_OVERHEAD = 32  # bytes around one byte of an answer in a record of its own, and some more
_END = "UNEXPECTED_EOF_WHILE_READING"  # OpenSSL 3's word, for which Python 3.11.2 has no class
_TLS_RECORDS = frozenset({20, 21, 22, 23})  # content types (RFC 8446, 5.1)


class Encrypted:
    """A connected socket and the TLS on top of it.

    Args:
        sock: it; whoever made it closes it.
        context: of a client.
        name: what the certificate must say.
        proxy: sent in front of the first record.
        answer_max: bytes of the answer that will be received.

    Thread-safety: the loop's thread only.
    """

    def __init__(
        self, sock: socket.socket, context: ssl.SSLContext, name: str, proxy: bytes, answer_max: int
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._outgoing.write(proxy)
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._room = _OVERHEAD_MAX + _RECORD_OVERHEAD * answer_max
        self._first_byte: int | None = None
        self._shaken = False

    async def shake_hands(self) -> bool:
        """To the end of the handshake; whether the upstream wants a certificate.

        Our last flight is not sent yet: it goes with what is sent next.

        Raises:
            CheckFailed: one of us does not accept the other.
            OSError: of the socket.
        """
        await self._through(self._tls.do_handshake)
        self._shaken = True
        cipher = self._tls.cipher()
        return self._outgoing.pending > bare_flight(cipher[0] if cipher else "")

    async def send(self, data: bytes) -> None:
        """Sends all of it, behind what is left of the handshake. Raises CheckFailed, OSError."""
        if data:
            await self._through(lambda: self._tls.write(data))
        await self._flush()

    async def receive(self, size: int) -> bytes:
        """Some bytes, at most so many; none: the end. Raises CheckFailed, OSError."""
        return await self._through(lambda: self._read(size))

    async def hear_verdict(self) -> None:
        """Waits until the upstream has accepted the certificate that it wanted, which with TLS 1.3 it does
        after the handshake: a ticket or data tell. One that issues no tickets and waits for us tells nothing.

        Raises:
            CheckFailed: it has not.
            OSError: of the socket.
        """
        if not await self._through(self._read_verdict):
            raise CheckFailed("it closed the connection after the handshake")

    def say_goodbye(self) -> None:
        """Sends our end, or the alert about what is wrong, as far as that goes without waiting."""
        with contextlib.suppress(OSError):
            if self._shaken:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()
            data = self._outgoing.read()
            if data:
                self._sock.send(data)

    # ---- between TLS and the socket

    async def _through(self, step: Callable[[], T]) -> T:
        """The outcome of a step of TLS, with all the reading that it needs."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                raise self._failure(error) from None

    def _read(self, size: int) -> bytes:
        try:
            return self._tls.read(size)
        except ssl.SSLZeroReturnError:
            return b""

    def _read_verdict(self) -> bool:
        """Whether it has accepted, or ended. Raises SSLWantReadError as long as neither is known."""
        try:
            return self._read(1) != b""
        except ssl.SSLWantReadError:
            session = self._tls.session
            if session is not None and session.has_ticket:
                return True
            raise

    async def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            await self._loop.sock_sendall(self._sock, data)

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self._sock, _READ)
        if not data:
            self._incoming.write_eof()
            return
        if self._first_byte is None:
            self._first_byte = data[0]
        self._room -= len(data)
        if self._room < 0:
            raise CheckFailed("it sends too much")
        self._incoming.write(data)

    def _failure(self, error: ssl.SSLError) -> CheckFailed:
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError) or error.reason == _END:
            when = "after" if self._shaken else "during"
            return CheckFailed(f"it closed the connection {when} the handshake")
        if self._first_byte is not None and self._first_byte not in _TLS_RECORDS:
            return CheckFailed("it does not speak TLS")
        return of_tls(error)


def bare_flight(cipher: str) -> int:
    """The bytes of a client's last flight without a Certificate message: there was nothing to answer.

    A change_cipher_spec record, and one record with Finished: header 5, message header 4, the hash,
    content type 1, tag 16 (RFC 8446, 4.4.4 and 5.2). An empty Certificate message already makes it longer.
    """
    digest = 48 if cipher.endswith("SHA384") else 32
    return 6 + 5 + 4 + digest + 1 + 16
