"""Proof, before anything is measured, that a proxy does the whole job and not a cheaper one.

What a proxy says it does in another way (`Proxy.limit`, `Proxy.least_connections`) is proven in that way.
The client here is Python's own, so that it shares nothing with the load.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from .certificates import KeyPair
from .cpu import settle
from .network import NETLINK_HEADER
from .proxies import Job, Limit, Proxy, Running, running
from .upstream import PATTERN

_LIMIT = 3  # connections per client, while this is tried
_OF_ALL = 20  # connections of all clients
_BULK = 16 << 20
_PIECE = 1 << 17  # of an upload that comes back: little enough to wait in sockets
_PATIENCE = 5.0  # seconds
_ECHO = b"echo ".ljust(63, b"x") + b"\n"
_CIPHERS = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384")
# linux/netlink.h, linux/sock_diag.h
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_ESTABLISHED = 1
_PLACES = itertools.count(2)


class JobNotDone(Exception):
    """A proxy lets in somebody it must refuse, refuses somebody it must let in, or alters bytes."""


def prove(proxy: Proxy, job: Job, folder: Path, cpus: list[int]) -> str:
    """Tries every part of the job once and returns what TLS agreed on, such as its cipher.

    Raises:
        JobNotDone: with the name of the proxy and the part of the job.
        ProxyFailed: it did not start.
    """
    small = dataclasses.replace(job, concurrent=_LIMIT, max_connections=_OF_ALL, workers=1)
    try:
        with running(proxy, small, folder, cpus) as started:
            agreed, source = _Preflight(proxy, small, started).all()
        _has_a_line(proxy.folder(folder) / proxy.log_name, source)
    except (JobNotDone, OSError) as failure:
        raise JobNotDone(f"{proxy.name} does not do the job: {failure}") from failure
    return agreed


def _has_a_line(log: Path, source: str) -> None:
    if not any(source in line for line in log.read_text(errors="replace").splitlines()):
        raise JobNotDone(f"no line about the connection from {source} in {log.name}")


class _Preflight:
    """One started proxy that has to show what it does."""

    def __init__(self, proxy: Proxy, job: Job, started: Running) -> None:
        self._proxy = proxy
        self._job = job
        self._started = started

    def all(self) -> tuple[str, str]:
        """What TLS agreed on, and the address of a client that was let in."""
        self._refuses_strangers()
        self._limits()
        self._spreads()
        if self._started.plain_port:
            self._carries_bytes(None)
        self._carries_bytes(self._job.certificates.clients[1])
        source = self._hands_out_no_ticket()
        self._until_quiet()
        settle(self._started.pid)  # the last line is written when the last connection has ended
        return self._agreed_tls(), source

    def _refuses_strangers(self) -> None:
        certificates = self._job.certificates
        self._must_refuse(None, "a client without a certificate")
        self._must_refuse(certificates.stranger, "a certificate that is not on the allow list")
        self._must_refuse(certificates.forger, "a listed serial from another CA")
        self._must_refuse(certificates.clients[0], "TLS 1.2", ssl.TLSVersion.TLSv1_2)

    def _must_refuse(
        self, client: KeyPair | None, what: str, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED
    ) -> None:
        context = _context(client, None)
        context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, newest
        if _is_let_in(lambda: _tls(self._started.tls_port, context, _place()), what):
            raise JobNotDone(f"{what}: was let in")

    def _limits(self) -> None:
        clients = self._job.certificates.clients
        match self._proxy.limit:
            case Limit.CLIENT:
                other = ("another client", lambda: self._listed(clients[1], _place()))
                self._fills(
                    _LIMIT, "a client's connections", lambda _: self._listed(clients[0], _place()), other
                )
            case Limit.SOURCE:
                here = _place()
                other = ("another address", lambda: self._listed(clients[1], _place()))
                self._fills(
                    _LIMIT, "an address's connections", lambda n: self._listed(clients[n], here), other
                )
            case Limit.PROCESS:
                self._fills(
                    _OF_ALL, "all connections", lambda n: self._listed(clients[n % len(clients)], _place())
                )
        self._until_quiet()
        if self._started.plain_port and self._proxy.lack("tcp-storm") is None:
            here = _place()
            self._fills(
                _LIMIT, "the plain connections of an address", lambda _: self._plain(here),
                ("another address", lambda: self._plain(_place())),
            )  # fmt: skip
        self._until_quiet()

    def _fills(
        self,
        limit: int,
        what: str,
        connect: Callable[[int], socket.socket],
        other: tuple[str, Callable[[], socket.socket]] | None = None,
    ) -> None:
        """As many as are allowed are let in, one more is not, and while they are open somebody else is."""
        with contextlib.ExitStack() as held:
            for number in range(limit):
                who = f"{number + 1} of {what}, where {limit} are allowed"
                _must_be_let_in(held, partial(connect, number), who)
            if _is_let_in(lambda: connect(limit), what):
                raise JobNotDone(f"{limit + 1} of {what} are open, {limit} are allowed")
            if other is not None:
                who, come = other
                _must_be_let_in(held, come, f"{who} while {limit} of {what} are open")

    def _spreads(self) -> None:
        """Six connections go to both upstreams alike; the next three to the one that has lost its own."""
        with contextlib.ExitStack() as held:
            first: list[tuple[int, socket.socket]] = [self._placed(held, number) for number in range(6)]
            if sorted(upstream for upstream, _ in first) != [0, 0, 0, 1, 1, 1]:
                raise JobNotDone(f"six connections went to upstreams {[upstream for upstream, _ in first]}")
            if not self._proxy.least_connections:
                return
            for upstream, sock in first:
                if upstream == 0:
                    sock.close()
            _until(lambda: self._counts()[0] == 0, "the first upstream keeps connections that were closed")
            more = [self._placed(held, number)[0] for number in range(3)]
            if more != [0, 0, 0]:
                raise JobNotDone(f"with none on upstream 0 and three on 1 the next went to {more}")
        self._until_quiet()

    def _placed(self, held: contextlib.ExitStack, number: int) -> tuple[int, socket.socket]:
        """A new connection, and the upstream that it went to."""
        before = self._counts()
        client = self._job.certificates.clients[number]
        sock = _must_be_let_in(
            held, lambda: self._listed(client, _place()), f"connection {number + 1} of six clients"
        )
        return (0 if self._counts()[0] > before[0] else 1), sock

    def _counts(self) -> list[int]:
        """Connections that each upstream has."""
        return [_established(port) for port in self._job.upstream_ports]

    def _until_quiet(self) -> None:
        _until(lambda: sum(self._counts()) == 0, "connections stay open at the upstreams")

    def _carries_bytes(self, client: KeyPair | None) -> None:
        data = expected_download()
        with self._of(client) as sock:
            sock.sendall(b"source %d\n" % _BULK)
            if _receive(sock, _BULK) != data:
                raise JobNotDone("a download arrived altered")
        with self._of(client) as sock:
            _echo(sock)
            for start in range(0, _BULK, _PIECE):
                piece = data[start : start + _PIECE]
                sock.sendall(piece)
                if _receive(sock, _PIECE) != piece:
                    raise JobNotDone("what was uploaded came back altered")

    def _of(self, client: KeyPair | None) -> socket.socket:
        return self._listed(client, _place()) if client else self._plain(_place())

    def _hands_out_no_ticket(self) -> str:
        """Where it came from who was let in."""
        with self._listed(self._job.certificates.clients[1], _place()) as sock:
            _echo(sock)
            if sock.session is not None and sock.session.has_ticket:
                raise JobNotDone("it hands out session tickets, so that later handshakes would be cheaper")
            return "{}:{}".format(*sock.getsockname())

    def _agreed_tls(self) -> str:
        """With a client that prefers the cheapest cipher, as the load does: Python's cannot be told."""
        client, ca = self._job.certificates.clients[2], self._job.certificates.ca
        command = ["openssl", "s_client", "-brief", "-tls1_3", "-ciphersuites", ":".join(_CIPHERS)]
        command += ["-connect", f"127.0.0.1:{self._started.tls_port}", "-CAfile", str(ca)]
        command += ["-cert", str(client.cert), "-key", str(client.key)]
        done = subprocess.run(command, input=_ECHO, capture_output=True, timeout=_PATIENCE, check=False)
        said = dict(re.findall(r"^([\w ]+): (.+)$", done.stderr.decode(errors="replace"), re.MULTILINE))
        if said.get("Ciphersuite") != _CIPHERS[0]:
            raise JobNotDone(f"agreed on {said.get('Ciphersuite', 'nothing')}, others on {_CIPHERS[0]}")
        return f"{said['Protocol version']} {said['Ciphersuite']} {said['Server Temp Key']}"

    def _listed(self, client: KeyPair, place: str) -> ssl.SSLSocket:
        return _tls(self._started.tls_port, _context(client, self._job.certificates.ca), place)

    def _plain(self, place: str) -> socket.socket:
        return _connect(self._started.plain_port, place)


def expected_download() -> bytes:
    """What the source of the upstreams sends, as much of it as is asked for here."""
    return (PATTERN * (_BULK // len(PATTERN) + 1))[:_BULK]


def _place() -> str:
    """A source address on loopback that nobody has had yet, so that no count by address matters."""
    number = next(_PLACES)
    return f"127.0.{number // 200 + 1}.{number % 200 + 1}"


def _connect(port: int, place: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE, source_address=(place, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _tls(port: int, context: ssl.SSLContext, place: str) -> ssl.SSLSocket:
    sock = _connect(port, place)
    try:
        return context.wrap_socket(sock, server_hostname="localhost")
    except BaseException:
        sock.close()
        raise


def _context(client: KeyPair | None, ca: Path | None) -> ssl.SSLContext:
    """A client that presents `client` and verifies the server against `ca` if given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = ca is not None
    context.verify_mode = ssl.CERT_NONE if ca is None else ssl.CERT_REQUIRED
    if ca is not None:
        context.load_verify_locations(ca)
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context


def _must_be_let_in(
    held: contextlib.ExitStack, connect: Callable[[], socket.socket], who: str
) -> socket.socket:
    """Connected, answered, and held open."""
    try:
        sock = held.enter_context(connect())
        _echo(sock)
    except (JobNotDone, OSError) as failure:
        raise JobNotDone(f"{who}: {failure}") from None
    return sock


def _is_let_in(connect: Callable[[], socket.socket], what: str) -> bool:
    try:
        with connect() as sock:
            _echo(sock)
    except TimeoutError:
        raise JobNotDone(f"{what}: neither refused nor answered") from None
    except (JobNotDone, OSError):
        return False
    return True


def _echo(sock: socket.socket) -> None:
    sock.sendall(_ECHO)
    if _receive(sock, len(_ECHO)) != _ECHO:
        raise JobNotDone("an echo arrived altered")


def _receive(sock: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = sock.recv(min(size - len(got), 1 << 18))
        if not piece:
            raise JobNotDone(f"the connection ended after {len(got)} of {size} bytes")
        got += piece
    return bytes(got)


def _established(port: int) -> int:
    """Connections that a server on `port` has, as sock_diag(7) tells it.

    /proc/net/tcp has the same, but after a run also every connection that has ended in the last minute.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        addresses = struct.pack("!H", port) + bytes(46)
        request = struct.pack("=BBBxI", socket.AF_INET, socket.IPPROTO_TCP, 0, 1 << _ESTABLISHED) + addresses
        size = NETLINK_HEADER.size + len(request)
        kernel.send(NETLINK_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 0, 0) + request)
        count = 0
        while True:
            answer = kernel.recv(1 << 16)
            while answer:
                length, kind, *_ = NETLINK_HEADER.unpack_from(answer)
                if kind == _ERROR:
                    raise OSError("the kernel does not tell its connections (sock_diag)")
                if kind == _DONE:
                    return count
                count += 1
                answer = answer[-(-length // 4) * 4 :]


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise JobNotDone(otherwise)
        time.sleep(0.01)
