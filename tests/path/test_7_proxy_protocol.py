"""Stage 7, dial: what an upstream is told of the client, once and first."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

import pytest
from kit.balancer import Balancer
from kit.clients import connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Identity, Pki
from kit.proxy_header import (
    APPLICATION,
    CLIENT,
    SERIAL,
    SSL_CIPHER,
    SSL_CLIENT_CERT,
    SSL_CN,
    SSL_VERSION,
    UNIQUE_ID,
    Header,
    read_header,
)
from kit.tls_upstream import tls_echo, tls_upstream
from kit.upstreams import Refuser, Session, Upstream, echo

from lbcore import Application, UpstreamServer, UpstreamTLS


class Told:
    """An upstream that reads the header and then runs a script."""

    def __init__(self, script: Callable[[Session], None] = echo) -> None:
        self.headers: list[Header] = []
        self._script = script

    def __call__(self, session: Session) -> None:
        self.read(session)
        self._script(session)

    def read(self, session: Session) -> None:
        self.headers.append(read_header(session.sock))


def visit(lb: Balancer, pki: Pki, identity: Identity | None = None) -> str:
    """Echoes once; the client's address."""
    with connect(pki, lb.port, identity) as client:
        client.echo(b"the first byte of the client")
        return client.source


def test_version_1(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), app={"proxy_protocol": "v1"})
    source = visit(lb, pki)
    assert told.headers == [Header(1, source, f"127.0.0.1:{lb.port}")]


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_both_families(balance: MakeBalancer, keep: Keep, version: str, family: socket.AddressFamily) -> None:
    """IPv4 that comes in on a socket for both is told as IPv4."""
    told = Told()
    lb = balance(keep(Upstream(told)), plaintext=True)
    both = lb.add("both", keep(Upstream(told)), plaintext=True, address="[::]:0", proxy_protocol=version)
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_connection((host, both.port), timeout=10) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
        port = sock.getsockname()[1]
    shown = host if family == socket.AF_INET else f"[{host}]"
    [header] = told.headers
    assert (header.source, header.target) == (f"{shown}:{port}", f"{shown}:{both.port}")


def test_version_2(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), app={"proxy_protocol": "v2"})
    source = visit(lb, pki)
    record = lb.record()
    assert told.headers == [
        Header(2, source, f"127.0.0.1:{lb.port}", {UNIQUE_ID: record.id.encode()}),
    ]


def test_who_it_is(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), app={"proxy_protocol": "v2+tls"})
    source = visit(lb, pki)
    [header] = told.headers
    record = lb.record()
    assert (header.source, header.target) == (source, f"127.0.0.1:{lb.port}")
    assert (header.fields[UNIQUE_ID], header.fields[CLIENT]) == (record.id.encode(), b"alice")
    assert (header.fields[SERIAL], header.fields[APPLICATION]) == (b"1001", b"web")
    assert (header.flags, header.verify) == (0x01 | 0x02 | 0x04, 0)
    assert header.ssl == {
        SSL_VERSION: b"TLSv1.3",
        SSL_CN: b"alice",
        SSL_CIPHER: (record.cipher or "").encode(),
        SSL_CLIENT_CERT: pki.alice.der,
    }


@pytest.mark.parametrize(
    "name",
    ["x\r\nPROXY TCP4 1.2.3.4 1.2.3.4 1 1", "\x1b[31m", "ö" * 20, "a" * 64],
    ids=["line", "escape", "utf-8", "long"],
)
def test_a_name_is_bytes_and_nothing_else(balance: MakeBalancer, keep: Keep, pki: Pki, name: str) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), app={"proxy_protocol": "v2+tls"})
    identity = pki.ca.issue(name)
    lb.policy.allow(identity, "web")
    visit(lb, pki, identity)
    [header] = told.headers
    assert header.ssl is not None
    assert header.ssl[SSL_CN] == name.encode()
    assert header.ssl[SSL_CLIENT_CERT] == identity.der


def test_a_large_certificate_is_told_whole(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), app={"proxy_protocol": "v2+tls"})
    identity = pki.ca.issue("large", organizations=["x" * 1000] * 16)
    lb.policy.allow(identity, "web")
    visit(lb, pki, identity)
    [header] = told.headers
    assert header.ssl is not None
    assert header.ssl[SSL_CLIENT_CERT] == identity.der


def test_a_plaintext_client_is_nobody(balance: MakeBalancer, keep: Keep) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), plaintext=True, app={"proxy_protocol": "v2+tls"})
    with plain(lb.port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    [header] = told.headers
    assert header.ssl is None
    assert sorted(header.fields) == [UNIQUE_ID, APPLICATION]


def test_it_comes_in_front_of_tls(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """The upstream reads it in the clear, then shakes hands."""
    told = Told()
    behind = keep(tls_upstream(pki, tls_echo, before=told.read))
    server = UpstreamServer(behind.address, tls=UpstreamTLS(ca=pki.ca.cert))
    lb = balance(server, app={"proxy_protocol": "v2+tls"})
    visit(lb, pki)
    [header] = told.headers
    assert header.fields[CLIENT] == b"alice"


def test_each_upstream_that_is_tried_gets_it_once(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    told = Told()
    lb = balance(keep(Refuser()), keep(Upstream(told)), app={"proxy_protocol": "v2", "passive_failures": 0})
    for _ in range(6):
        visit(lb, pki)
    assert len(told.headers) == 6
    assert {record.reason for record in lb.records.wait(6)} == {"client_closed"}


def test_without_it_nothing_is_told(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    seen = []

    def first(session: Session) -> None:
        seen.append(session.sock.recv(1 << 16))
        session.sock.sendall(seen[-1])
        with contextlib.suppress(OSError):
            session.collect()

    lb = balance(keep(Upstream(first)))
    visit(lb, pki)
    assert seen == [b"the first byte of the client"]


def test_a_submitted_socket_is_told_as_well(balance: MakeBalancer, keep: Keep) -> None:
    told = Told()
    app = Application("door", [UpstreamServer(keep(Upstream(told)).address)], proxy_protocol="v1")
    lb = balance(keep(Upstream()), plaintext=True)
    with (
        socket.create_server(("127.0.0.1", 0)) as front,
        socket.create_connection(front.getsockname()) as sock,
    ):
        accepted, address = front.accept()
        app.submit_connection(accepted)
        sock.settimeout(10)
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    assert told.headers[0].source == "{}:{}".format(*address)
    assert lb.engine.running


def test_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="proxy_protocol: one of v1, v2, v2\\+tls, or None"):
        Application("web", [UpstreamServer("127.0.0.1:1")], proxy_protocol="v3")  # type: ignore[arg-type]
