"""One connection as a client, and what became of it.

With TLS 1.3 the client has finished before the server has judged its certificate, so a refusal arrives
after the handshake: whoever wants to know waits a moment for it. TLS runs on memory here and not on the
socket, so that a reset, an end and a TLS end stay apart, and every wait has one deadline.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

_READ = 65536
_GOODBYE = 0.5  # seconds for the server to end its side
_TLS_RECORDS = frozenset({20, 21, 22, 23})  # content types (RFC 8446, 5.1)
_ALERT = re.compile(r"alert[ _]([a-z_ ]+?)(?: \(|$|\])", re.IGNORECASE)


class Outcome(Enum):
    """How a probe ended."""

    ADMITTED = "admitted"
    NOT_ASKED = "certificate_not_asked"
    REFUSED = "refused"
    TURNED_AWAY = "turned_away"
    CUT = "cut"
    CLOSED_EARLY = "closed_early"
    UNTRUSTED = "untrusted"
    NO_TLS13 = "no_tls13"
    NOT_TLS = "not_tls"
    HANDSHAKE_FAILED = "handshake_failed"
    CONNECTION_REFUSED = "connection_refused"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"


@dataclass
class Probed:
    """What a probe saw.

    Attributes:
        outcome: how it ended.
        detail: the alert, or the error in the library's words; empty when there is nothing to add.
        peer: the address that answered.
        tls: the version of TLS.
        cipher: the cipher suite.
        certificate_asked: whether the server asked for a client certificate; None when it did not get there.
        received: bytes of the application that came in.
    """

    outcome: Outcome
    detail: str = ""
    peer: str | None = None
    tls: str | None = None
    cipher: str | None = None
    certificate_asked: bool | None = None
    received: int = 0


class _Ended(Exception):
    """The probe is over."""

    def __init__(self, outcome: Outcome, detail: str = "") -> None:
        super().__init__(outcome, detail)
        self.outcome = outcome
        self.detail = detail


def probe(
    host: str, port: int, context: ssl.SSLContext, server_name: str, *, timeout: float, wait: float
) -> Probed:
    """Connect, shake hands, and wait for the server's judgement.

    Args:
        host: a name or an IP address.
        port: where the application listens.
        context: with the client's certificate and the CA to trust.
        server_name: what the server's certificate must name.
        timeout: seconds for the connection and the handshake together.
        wait: seconds after the handshake in which a refusal is expected.
    """
    deadline = time.monotonic() + timeout
    try:
        sock, peer = _connect(host, port, deadline)
    except _Ended as ended:
        return Probed(ended.outcome, ended.detail)
    with sock:
        return _Client(sock, peer, context, server_name).run(deadline, wait)


def _connect(host: str, port: int, deadline: float) -> tuple[socket.socket, str]:
    """The first of the host's addresses that answers, and which one that is."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise _Ended(Outcome.UNREACHABLE, getattr(error, "strerror", None) or "no such host") from None
    failed = _Ended(Outcome.UNREACHABLE, "no address")
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
            sock.connect(address)
        except OSError as error:
            sock.close()
            failed = _connect_failure(error)
        else:
            return sock, _spelled(address)
    raise failed


def _connect_failure(error: OSError) -> _Ended:
    if isinstance(error, TimeoutError):
        return _Ended(Outcome.TIMEOUT, "connect")
    if isinstance(error, ConnectionRefusedError):
        return _Ended(Outcome.CONNECTION_REFUSED)
    if isinstance(error, ConnectionResetError):  # accepted, and reset before we looked
        return _Ended(Outcome.CLOSED_EARLY, "reset")
    return _Ended(Outcome.UNREACHABLE, error.strerror or str(error))


class _Client:
    """A connected socket and the TLS on top of it."""

    def __init__(self, sock: socket.socket, peer: str, context: ssl.SSLContext, server_name: str) -> None:
        self._sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._result = Probed(Outcome.ADMITTED, peer=peer)
        self._first_byte: int | None = None

    def run(self, deadline: float, wait: float) -> Probed:
        """The whole conversation."""
        result = self._result
        try:
            self._handshake(deadline)
            self._judgement(time.monotonic() + wait)
            self._say_goodbye()
        except _Ended as ended:
            result.outcome, result.detail = ended.outcome, ended.detail
        if result.outcome is Outcome.ADMITTED and result.certificate_asked is False:
            result.outcome = Outcome.NOT_ASKED
        return result

    def _handshake(self, deadline: float) -> None:
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._flush(deadline, Outcome.CLOSED_EARLY)
                self._receive(deadline, Outcome.CLOSED_EARLY)
            except ssl.SSLCertVerificationError as error:
                self._flush_quietly()  # the alert that says so
                raise _Ended(Outcome.UNTRUSTED, error.verify_message) from None
            except ssl.SSLError as error:
                if _is_cut(error):
                    raise _Ended(Outcome.CLOSED_EARLY, "end") from None
                self._flush_quietly()
                raise self._handshake_failure(error) from None
        self._note_session()
        self._flush(deadline, Outcome.REFUSED)

    def _handshake_failure(self, error: ssl.SSLError) -> _Ended:
        if self._first_byte not in _TLS_RECORDS:
            return _Ended(Outcome.NOT_TLS)
        alert = _alert(error)
        if alert == "protocol version" or "UNSUPPORTED_PROTOCOL" in str(error).upper().replace(" ", "_"):
            return _Ended(Outcome.NO_TLS13)
        if alert:
            return _Ended(Outcome.REFUSED, alert)
        return _Ended(Outcome.HANDSHAKE_FAILED, error.reason or str(error))

    def _note_session(self) -> None:
        """Called between the server's last flight and ours, which lies in the outgoing memory."""
        cipher = self._tls.cipher()
        self._result.tls = self._tls.version()
        self._result.cipher = cipher[0] if cipher else None
        self._result.certificate_asked = self._outgoing.pending > _bare_flight(self._result.cipher or "")

    def _judgement(self, deadline: float) -> None:
        """Return when the server keeps the connection or sends something."""
        while True:
            try:
                data = self._tls.read(_READ)
            except ssl.SSLWantReadError:
                self._flush(deadline, Outcome.REFUSED)
                try:
                    self._receive(deadline, Outcome.REFUSED)
                except _Ended as ended:
                    if ended.outcome is Outcome.TIMEOUT:
                        return
                    raise
                continue
            except ssl.SSLZeroReturnError:
                raise _Ended(Outcome.TURNED_AWAY) from None
            except ssl.SSLError as error:
                if _is_cut(error):
                    raise _Ended(Outcome.CUT) from None
                raise _Ended(Outcome.REFUSED, _alert(error) or error.reason or str(error)) from None
            if not data:
                raise _Ended(Outcome.TURNED_AWAY)
            self._result.received = len(data)
            return

    def _receive(self, deadline: float, on_reset: Outcome) -> None:
        self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = self._sock.recv(_READ)
        except TimeoutError:
            raise _Ended(Outcome.TIMEOUT, "handshake") from None
        except OSError:
            raise _Ended(on_reset, "reset") from None
        if self._first_byte is None and data:
            self._first_byte = data[0]
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self, deadline: float, on_reset: Outcome) -> None:
        data = self._outgoing.read()
        if not data:
            return
        self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            self._sock.sendall(data)
        except TimeoutError:
            raise _Ended(Outcome.TIMEOUT, "handshake") from None
        except OSError:
            raise _Ended(on_reset, "reset") from None

    def _flush_quietly(self) -> None:
        with contextlib.suppress(_Ended):
            self._flush(time.monotonic() + 0.1, Outcome.CUT)

    def _say_goodbye(self) -> None:
        """End the connection; when the server does not end it too, reset it, so that nothing stays behind.

        An application may take our end for half of one and hold its own side, and a place, for long.
        """
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush_quietly()
        deadline = time.monotonic() + _GOODBYE
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                self._sock.settimeout(left)
                if not self._sock.recv(_READ):
                    return
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _bare_flight(cipher: str) -> int:
    """The bytes of a client's last flight without a Certificate message: there was nothing to answer.

    A change_cipher_spec record, and one record with Finished: header 5, message header 4, the hash,
    content type 1, tag 16 (RFC 8446, 4.4.4 and 5.2). An empty Certificate message already makes it longer.
    """
    digest = 48 if cipher.endswith("SHA384") else 32
    return 6 + 5 + 4 + digest + 1 + 16


def _is_cut(error: ssl.SSLError) -> bool:
    """Whether it says that the bytes ended without a TLS end; Python 3.11.2 has no class for OpenSSL 3's."""
    return isinstance(error, ssl.SSLEOFError) or error.reason == "UNEXPECTED_EOF_WHILE_READING"


def _alert(error: ssl.SSLError) -> str:
    """The alert's name in an error's text: "certificate required"; empty when there is none."""
    found = _ALERT.search(str(error))
    return found[1].replace("_", " ").strip().lower() if found else ""


def _spelled(address: Sequence[object]) -> str:
    host, port = str(address[0]), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
