"""Proof, before anything is measured, that a proxy does the whole job and not a cheaper one."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from .certificates import KeyPair
from .load import LoadFailed, Target, echo, message, tls_context
from .proxies import Job, Proxy, Running, running
from .upstream import PATTERN

_LIMIT = 3  # concurrent connections per client, while this is tried
_BULK = 16 << 20
_PATIENCE = 5.0  # seconds


class JobNotDone(Exception):
    """A proxy lets in somebody it must refuse, refuses somebody it must let in, or alters bytes."""


def prove(proxy: Proxy, job: Job, folder: Path, cpus: Sequence[int]) -> str:
    """Tries every part of the job once and returns what TLS agreed on, such as its cipher.

    Raises:
        JobNotDone: with the name of the proxy and the part of the job.
        ProxyFailed: it did not start.
    """
    small = dataclasses.replace(job, concurrent=_LIMIT)
    with running(proxy, small, folder, cpus) as started:
        try:
            _refuses_strangers(started, small)
            _limits_each_client(started, small)
            _carries_bytes(Target(started.plain_port), small)
            agreed = _agreed_tls(started, small)
            _carries_bytes(_listed(started, small, 1), small)
        except (JobNotDone, LoadFailed, OSError) as failure:
            raise JobNotDone(f"{proxy.name} does not do the job: {failure}") from failure
    return agreed


def _listed(started: Running, job: Job, index: int) -> Target:
    return Target(started.tls_port, job.certificates.clients[index], job.certificates.ca)


@contextlib.contextmanager
def _connected(target: Target) -> Iterator[socket.socket]:
    with target.connect(target.context()) as sock:
        sock.settimeout(_PATIENCE)
        yield sock


def _refuses_strangers(started: Running, job: Job) -> None:
    certificates = job.certificates
    _must_refuse(started, None, "a client without a certificate")
    _must_refuse(started, certificates.stranger, "a serial that is not on the allow list")
    _must_refuse(started, certificates.forger, "a listed serial from another CA")
    _must_refuse(started, certificates.clients[0], "TLS 1.2", ssl.TLSVersion.TLSv1_2)


def _must_refuse(
    started: Running,
    client: KeyPair | None,
    what: str,
    newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
) -> None:
    context = tls_context(client, None)
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1_2, newest
    try:
        with (
            socket.create_connection(("127.0.0.1", started.tls_port), timeout=_PATIENCE) as sock,
            context.wrap_socket(sock) as tls,
        ):
            echo(tls, message(64))
    except TimeoutError:
        raise JobNotDone(f"{what}: neither refused nor answered") from None
    except (LoadFailed, OSError):
        return
    raise JobNotDone(f"{what}: was let in")


def _limits_each_client(started: Running, job: Job) -> None:
    with contextlib.ExitStack() as held:
        for number in range(1, _LIMIT + 2):
            sock = held.enter_context(_connected(_listed(started, job, 0)))
            try:
                echo(sock, message(64))
            except (LoadFailed, OSError) as failure:
                if number <= _LIMIT:
                    raise JobNotDone(f"connection {number} of {_LIMIT} allowed: {failure}") from failure
                return
    raise JobNotDone(f"one client has {_LIMIT + 1} connections open, {_LIMIT} are allowed")


def _carries_bytes(target: Target, job: Job) -> None:
    expected = hashlib.sha256((PATTERN * (_BULK // len(PATTERN) + 1))[:_BULK]).digest()
    with _connected(target) as sock:
        sock.sendall(b"source %d\n" % _BULK)
        got, left = hashlib.sha256(), _BULK
        while left:
            piece = sock.recv(min(left, 1 << 18))
            if not piece:
                raise JobNotDone(f"a download of {_BULK} bytes ended {left} early")
            got.update(piece)
            left -= len(piece)
    if got.digest() != expected:
        raise JobNotDone("a download arrived altered")


def _agreed_tls(started: Running, job: Job) -> str:
    with _connected(_listed(started, job, 1)) as sock:
        assert isinstance(sock, ssl.SSLSocket)
        echo(sock, message(64))
        if sock.session is not None and sock.session.has_ticket:
            raise JobNotDone("it hands out session tickets, so that later handshakes would be cheaper")
        cipher = sock.cipher()
        assert cipher is not None
        return f"{cipher[1]} {cipher[0]}"
