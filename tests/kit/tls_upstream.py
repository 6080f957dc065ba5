"""An upstream that speaks TLS, and sees on the wire how the balancer ends."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING

from kit.sockets import End
from kit.upstreams import Script, Session, Upstream

if TYPE_CHECKING:
    from kit.pki import Identity, Pki


class TlsSession:
    """A connection past its handshake; what a `TlsScript` works with.

    Attributes:
        session: the connection as its `Upstream` knows it: `received` and `ended` are kept.
        tls: Python's view of it.
    """

    def __init__(self, session: Session, context: ssl.SSLContext) -> None:
        self.session = session
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def handshake(self) -> None:
        """Raises ssl.SSLError when the balancer does not like us, or we do not like it."""
        while True:
            try:
                self.tls.do_handshake()
                self._flush()
                return
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()
                raise

    def seal(self, data: bytes) -> bytes:
        """`data` in records, not sent."""
        self.tls.write(data)
        return self._outgoing.read()

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), 1 << 16):
            self.tls.write(view[start : start + (1 << 16)])
            self._flush()

    def send_close_notify(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self._flush()

    def receive_some(self) -> bytes | End:
        """Some bytes, or how the balancer's side ended."""
        while True:
            try:
                return self.tls.read(1 << 16) or End.CLOSE_NOTIFY
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                return End.CLOSE_NOTIFY
            try:
                self._fill()
            except (ConnectionResetError, BrokenPipeError):
                return End.RESET
            except ssl.SSLEOFError:
                return End.FIN

    def collect(self) -> None:
        """Reads to the end."""
        while isinstance(part := self.receive_some(), bytes):
            self.session.received += part
        self.session.ended = part

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.session.sock.sendall(data)

    def _fill(self) -> None:
        data = self.session.sock.recv(1 << 18)
        if not data:
            raise ssl.SSLEOFError("FIN")
        self._incoming.write(data)


TlsScript = Callable[[TlsSession], None]


def tls_echo(tls: TlsSession) -> None:
    """Sends back what comes, and the end too."""
    while isinstance(part := tls.receive_some(), bytes):
        tls.session.received += part
        tls.send(part)
    tls.session.ended = part
    if part is End.CLOSE_NOTIFY:
        tls.send_close_notify()


def tls_upstream(
    pki: Pki,
    script: TlsScript = tls_echo,
    *,
    identity: Identity | None = None,
    wants_certificate: bool = False,
    newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    before: Callable[[Session], None] | None = None,
    receive_buffer: int | None = None,
) -> Upstream:
    """A server that shakes hands and runs the script.

    Args:
        pki: whose CA it trusts.
        script: for each connection.
        identity: what it presents; `pki.server` by default, which is for localhost and 127.0.0.1.
        wants_certificate: the balancer has to show one.
        newest: the highest version it speaks.
        before: runs on the connection before the handshake.
        receive_buffer: SO_RCVBUF of its connections, or None.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = newest
    shown = identity or pki.server
    context.load_cert_chain(shown.cert, shown.key)
    if wants_certificate:
        context.load_verify_locations(pki.ca.cert)
        context.verify_mode = ssl.CERT_REQUIRED

    def run(session: Session) -> None:
        if before is not None:
            before(session)
        tls = TlsSession(session, context)
        with contextlib.suppress(ssl.SSLError):  # the balancer has refused it, and its record says so
            tls.handshake()
            script(tls)

    plain: Script = run
    return Upstream(plain, receive_buffer=receive_buffer)


def dumps_certificate(tls: TlsSession) -> None:
    """Tells the serial of the certificate that the balancer showed."""
    shown = tls.tls.getpeercert()
    tls.send(str(int(str(shown["serialNumber"]), 16) if shown else None).encode())
    tls.send_close_notify()
    tls.collect()


__all__ = ["TlsSession", "dumps_certificate", "tls_echo", "tls_upstream"]
