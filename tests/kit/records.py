"""A client that writes its own TLS 1.3 records: whatever a peer may send, when and in what shape it likes.

Python's TLS shakes hands; from there the keys are ours (its key log has them), and so are the records:
key updates, empty records, several messages in one record, padding, bytes that no library would send.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from kit.clients import TlsClient, client_context
from kit.sockets import End, reset

if TYPE_CHECKING:
    from kit.pki import Identity, Pki

# RFC 8446, 5.1 and B.3
ALERT, HANDSHAKE, DATA = 21, 22, 23
KEY_UPDATE = 24
CLOSE_NOTIFY = bytes([1, 0])
FRAGMENT_MAX = 16384

_SUITES: dict[str, tuple[HashAlgorithm, int]] = {
    "TLS_AES_128_GCM_SHA256": (SHA256(), 16),
    "TLS_AES_256_GCM_SHA384": (SHA384(), 32),
}


def key_update(*, wants_answer: bool) -> bytes:
    """The message; with an answer wanted the other side has to change its keys too (RFC 8446, 4.6.3)."""
    return bytes([KEY_UPDATE, 0, 0, 1, wants_answer])


class _Keys:
    """One direction: a secret, the key and nonce that follow from it, the number of the next record."""

    def __init__(self, suite: str, secret: bytes) -> None:
        self._hash, self._key_length = _SUITES[suite]
        self._secret = secret
        self.updates = 0
        self._derive()

    def _expand(self, label: bytes, length: int) -> bytes:
        label = b"tls13 " + label
        info = struct.pack(">HB", length, len(label)) + label + b"\0"
        return HKDFExpand(self._hash, length, info).derive(self._secret)

    def _derive(self) -> None:
        self._aead = AESGCM(self._expand(b"key", self._key_length))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self._number = 0

    def update(self) -> None:
        """The next generation (RFC 8446, 7.2)."""
        self._secret = self._expand(b"traffic upd", self._hash.digest_size)
        self.updates += 1
        self._derive()

    def _nonce(self) -> bytes:
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return nonce

    def seal(self, content: bytes, kind: int, padding: int) -> bytes:
        inner = content + bytes([kind]) + bytes(padding)
        header = struct.pack(">BHH", DATA, 0x0303, len(inner) + 16)
        return header + self._aead.encrypt(self._nonce(), inner, header)

    def open(self, header: bytes, sealed: bytes) -> tuple[int, bytes]:
        inner = self._aead.decrypt(self._nonce(), sealed, header).rstrip(b"\0")
        return inner[-1], inner[:-1]


class RecordClient:
    """A client past its handshake.

    Args:
        pki: whose CA it trusts.
        port: of the balancer.
        identity: what it presents, `alice` by default.
        receive_buffer: SO_RCVBUF, or None.
        send_buffer: SO_SNDBUF, or None.
        segment: TCP_MAXSEG, or None.

    Attributes:
        sock: the socket, for what is not a record.
        answers: key updates the balancer has sent.
        alert: description of the last alert it has sent, or None.
    """

    def __init__(
        self,
        pki: Pki,
        port: int,
        identity: Identity | None = None,
        *,
        receive_buffer: int | None = None,
        send_buffer: int | None = None,
        segment: int | None = None,
    ) -> None:
        self.alert: int | None = None
        self._arrived = bytearray()
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "keys")
            context = client_context(pki, identity or pki.alice)
            context.keylog_filename = str(log)
            self._client = TlsClient(port, context, receive_buffer=receive_buffer, segment=segment)
            self.sock = self._client.sock
            if send_buffer is not None:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            try:
                self._client.handshake()
                suite = self._client.tls.cipher()
                assert suite is not None
                secrets = _secrets(log)
                self._send = _Keys(suite[0], secrets["CLIENT_TRAFFIC_SECRET_0"])
                self._receive = _Keys(suite[0], secrets["SERVER_TRAFFIC_SECRET_0"])
            except BaseException:
                self.sock.close()
                raise

    @property
    def answers(self) -> int:
        """Key updates the balancer has sent."""
        return self._receive.updates

    # ---- out

    def seal(self, content: bytes, kind: int = DATA, *, padding: int = 0) -> bytes:
        """One record, not sent."""
        return self._send.seal(content, kind, padding)

    def sealed_update(self, *, wants_answer: bool, count: int = 1) -> bytes:
        """A record with so many key updates, not sent; what is sealed next is under the newest key."""
        record = self.seal(key_update(wants_answer=wants_answer) * count, HANDSHAKE)
        for _ in range(count):
            self._send.update()
        return record

    def follow_own_update(self) -> None:
        """The next key for what is sealed from here on: an update was sent in pieces."""
        self._send.update()

    def sealed_data(self, data: bytes) -> bytes:
        """Records, not sent."""
        return b"".join(
            self.seal(data[start : start + FRAGMENT_MAX]) for start in range(0, len(data), FRAGMENT_MAX)
        )

    def send(self, data: bytes) -> None:
        """Seals and sends all of it."""
        self.sock.sendall(self.sealed_data(data))

    def send_close_notify(self) -> None:
        """Half-close: no more bytes from here."""
        self.sock.sendall(self.seal(CLOSE_NOTIFY, ALERT))

    # ---- in

    def receive_record(self) -> bytes | End:
        """The payload of the next record with data, or how the stream ended. Key updates are followed."""
        while True:
            try:
                header = self._take(5)
                sealed = self._take(int.from_bytes(header[3:])) if header else b""
            except (ConnectionResetError, BrokenPipeError):
                return End.RESET
            if not sealed:
                return End.FIN
            kind, content = self._receive.open(header, sealed)
            if kind == DATA:
                return content
            if kind == ALERT:
                self.alert = content[1]
                return End.CLOSE_NOTIFY if content == CLOSE_NOTIFY else End.ALERT
            if content[0] == KEY_UPDATE:
                self._receive.update()

    def _take(self, length: int) -> bytes:
        """That many bytes, or none if the stream ends before."""
        while len(self._arrived) < length:
            part = self.sock.recv(1 << 18)
            if not part:
                return b""
            self._arrived += part
        taken = bytes(self._arrived[:length])
        del self._arrived[:length]
        return taken

    def receive(self, length: int) -> bytes:
        """Exactly that many bytes, which must end with a record."""
        data = bytearray()
        while len(data) < length:
            part = self.receive_record()
            assert isinstance(part, bytes), f"ended with {part} after {len(data)} of {length} bytes"
            data += part
        assert len(data) == length
        return bytes(data)

    def receive_to_end(self) -> tuple[bytes, End]:
        """All there is, and how it ended."""
        data = bytearray()
        while True:
            part = self.receive_record()
            if isinstance(part, End):
                return bytes(data), part
            data += part

    def reset(self) -> None:
        """Vanishes with a RST."""
        reset(self.sock)

    def close(self) -> None:
        """Ends as polite clients do, if it has not ended yet."""
        if self.sock.fileno() >= 0:
            with contextlib.suppress(OSError):
                self.send_close_notify()
            self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LastFlight:
    """What completes a client's handshake, taken apart, to be sent in other records.

    Args:
        client: one that has not shaken hands.
        log: the key log of its context.

    Attributes:
        messages: Certificate, CertificateVerify and Finished.
    """

    def __init__(self, client: TlsClient, log: Path) -> None:
        flight = client.last_flight()
        suite = client.tls.cipher()
        assert suite is not None
        secret = _secrets(log)["CLIENT_HANDSHAKE_TRAFFIC_SECRET"]
        self._keys = _Keys(suite[0], secret)
        opening = _Keys(suite[0], secret)
        text = b""
        while flight:
            end = end_of_record(flight, 0)
            if flight[0] == DATA:
                text += opening.open(flight[:5], flight[5:end])[1]
            flight = flight[end:]
        self.messages: list[bytes] = []
        while text:
            end = 4 + int.from_bytes(text[1:4])
            self.messages.append(text[:end])
            text = text[end:]

    def seal(self, *contents: bytes) -> bytes:
        """A record for each, not sent."""
        return b"".join(self._keys.seal(content, HANDSHAKE, 0) for content in contents)


def end_of_record(data: bytes, start: int) -> int:
    """Of the record that begins there."""
    return start + 5 + int.from_bytes(data[start + 3 : start + 5])


def _secrets(log: Path) -> dict[str, bytes]:
    """By label, from a key log (RFC 9850)."""
    lines = [line.split() for line in log.read_text().splitlines() if not line.startswith("#")]
    return {label: bytes.fromhex(secret) for label, _random, secret in lines}
