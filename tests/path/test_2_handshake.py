"""Stage 2, handshake: TLS 1.3 or nothing, in time, and bounded."""

from __future__ import annotations

import os
import ssl
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kit.balancer import REFUSED, Stopwatch
from kit.clients import TlsClient, client_context, connect, curl, outcome, plain, s_client
from kit.fixtures import MakeBalancer
from kit.pki import Pki
from kit.servers import free_port, require_server
from kit.sockets import read_exactly, read_to_end
from kit.upstreams import Upstream
from kit.waiting import wait_until

SUITES = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


def test_tls_1_3_with_a_good_certificate(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    with connect(lb.pki, lb.port) as client:
        assert client.tls.version() == "TLSv1.3"
        client.echo(b"hello")
    record = lb.record(event="conn.close")
    assert record.tls == "TLSv1.3"
    assert record.cipher in SUITES
    assert record.handshake_ms is not None
    assert record.handshake_ms > 0


def test_tls_1_2_is_refused_with_the_alert_for_it(balance: MakeBalancer, upstream: Upstream) -> None:
    openssl = require_server("openssl")
    lb = balance(upstream)
    alice = lb.pki.alice
    seen = s_client(openssl, lb.port, "-tls1_2", "-cert", str(alice.cert), "-key", str(alice.key))
    assert "alert number 70" in seen
    assert seen.status != 0
    record = lb.record(reason="tls_version")
    assert (record.event, record.stage) == ("conn.deny", "handshake")
    assert upstream.accepted == 0


def test_python_sees_the_version_alert(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    context = client_context(lb.pki, lb.pki.alice, newest=ssl.TLSVersion.TLSv1_2)
    with TlsClient(lb.port, context) as client, pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        client.handshake()


def test_s_client_gets_through(balance: MakeBalancer, upstream: Upstream) -> None:
    openssl = require_server("openssl")
    lb = balance(upstream)
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-CAfile", str(lb.pki.ca.cert), "-verify_return_error", "-brief",
        "-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key), send=b"hello there\n",
    )  # fmt: skip
    assert "Protocol version: TLSv1.3" in seen
    assert "Verification: OK" in seen
    assert "hello there" in seen


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"G",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c",
        b"\x80\x2e\x01\x00\x02",
        b"\x16\x02\x00\x00\x10",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x30\x02",
        b"\x00",
    ],
    ids=[
        "http", "one byte", "proxy v1", "proxy v2", "sslv2", "not 3.x", "empty record", "too long",
        "server hello", "zero",
    ],
)
def test_what_is_not_tls_is_closed_at_once(balance: MakeBalancer, upstream: Upstream, first: bytes) -> None:
    lb = balance(upstream)
    watch = Stopwatch()
    with plain(lb.port) as client:
        client.sendall(first)
        assert read_to_end(client)[0] == b""
    assert watch.seconds < 3
    assert lb.record(reason="not_tls").stage == "handshake"
    assert upstream.accepted == 0


def test_a_hello_in_single_bytes_is_served(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    with TlsClient(lb.port, client_context(lb.pki, lb.pki.alice)) as client:
        for byte in client.first_flight():
            client.sock.sendall(bytes([byte]))
        client.handshake()
        client.echo(b"patient")


def test_a_hello_that_announces_too_much_is_ended_at_once(balance: MakeBalancer, upstream: Upstream) -> None:
    """Nine bytes say how long it is going to be."""
    lb = balance(upstream)
    with plain(lb.port) as client:
        client.sendall(b"\x16\x03\x01\x40\x00\x01" + (16385).to_bytes(3, "big"))
        assert read_to_end(client)[0] == b""
    assert lb.record(reason="handshake_too_big").stage == "handshake"


def test_a_handshake_that_only_grows_is_ended(balance: MakeBalancer, upstream: Upstream) -> None:
    """A ClientHello may announce 16 MiB; nobody collects that for a stranger."""
    lb = balance(upstream)
    handshake = b"\x01" + (60000).to_bytes(3, "big") + b"\x03\x03" + bytes(60000)
    with plain(lb.port) as client:
        try:
            for start in range(0, len(handshake), 4000):
                part = handshake[start : start + 4000]
                client.sendall(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part)
        except (ConnectionResetError, BrokenPipeError):
            pass
        read_to_end(client)
    assert lb.record(event="conn.deny").reason == "handshake_too_big"
    assert upstream.accepted == 0


def test_rogue_certificates_in_a_row_never_stall_a_worker(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """s2n by default puts the calling thread to sleep for up to half a minute after a bad handshake."""
    lb = balance(upstream, engine={"workers": 1})
    rogue = client_context(pki, pki.rogue.issue("mallory"))
    with connect(pki, lb.port) as client:
        watch = Stopwatch()
        for _ in range(50):
            outcome(lb.port, rogue)
            client.echo(b"not disturbed")
        assert watch.seconds < 20
    assert len(lb.records.wait(50, reason="unknown_ca")) == 50
    assert upstream.accepted == 1


def test_garbage_after_the_hello_is_refused(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    with TlsClient(lb.port, client_context(lb.pki, lb.pki.alice)) as client:
        client.sock.sendall(client.first_flight())
        assert read_exactly(client.sock, 5)[0] == 22
        client.sock.sendall(b"\x17\x03\x03\x00\x40" + os.urandom(64))
        read_to_end(client.sock)
    record = lb.record(event="conn.deny")
    assert (record.reason, record.stage) == ("handshake_failed", "handshake")
    assert record.tls_error is not None


def test_a_client_that_leaves_in_the_middle_is_not_a_denial(
    balance: MakeBalancer, upstream: Upstream
) -> None:
    lb = balance(upstream)
    with TlsClient(lb.port, client_context(lb.pki, lb.pki.alice)) as client:
        client.sock.sendall(client.first_flight())
        assert read_exactly(client.sock, 5)[0] == 22
        client.reset()
    assert lb.record().reason == "client_gone"


def test_no_session_is_ever_resumed(balance: MakeBalancer, upstream: Upstream, tmp_path: Path) -> None:
    """A resumed session would skip the certificate: none is given, and another server's is not taken."""
    openssl = require_server("openssl")
    lb = balance(upstream)
    saved = tmp_path / "session.pem"
    identity = ("-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key), "-tls1_3")
    with tickets(openssl, lb.pki) as port:
        first = s_client(openssl, port, *identity, "-sess_out", str(saved), script=((b"hello\n", b"olleh"),))
    assert "New, TLSv1.3" in first
    assert "BEGIN SSL SESSION PARAMETERS" in saved.read_text()
    second = s_client(openssl, lb.port, *identity, "-sess_in", str(saved), send=b"hello there\n")
    assert "New, TLSv1.3" in second
    assert "Reused" not in second
    assert "New Session Ticket" not in second
    assert "Acceptable client certificate CA names" in second


def test_a_shared_key_that_is_offered_changes_nothing(balance: MakeBalancer, upstream: Upstream) -> None:
    """A full handshake with a certificate, as for everybody."""
    openssl = require_server("openssl")
    lb = balance(upstream)
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-psk", "00112233", "-psk_identity", "alice",
        "-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key), send=b"hello there\n",
    )  # fmt: skip
    assert "Acceptable client certificate CA names" in seen
    assert "Reused" not in seen
    assert "hello there" in seen
    assert lb.record().client == "alice"


@contextmanager
def tickets(openssl: str, pki: Pki) -> Iterator[int]:
    """A TLS 1.3 server that hands out session tickets and reverses what it hears; its port."""
    port = free_port()
    command = [openssl, "s_server", "-accept", str(port), "-tls1_3", "-quiet", "-rev",
               "-cert", str(pki.server.cert), "-key", str(pki.server.key)]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: answers(port), "it listens")
            yield port
        finally:
            server.kill()


def answers(port: int) -> bool:
    try:
        plain(port).close()
    except ConnectionRefusedError:
        return False
    return True


def test_early_data_is_not_offered(balance: MakeBalancer, upstream: Upstream) -> None:
    openssl = require_server("openssl")
    lb = balance(upstream)
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key),
        send=b"hello there\n",
    )  # fmt: skip
    assert "Early data was not sent" in seen
    assert "Max Early Data: " not in seen


def test_alpn_is_the_applications_own(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream, alpn=("h2", "http/1.1"))
    lb.policy.allow(pki.alice, "web", "other")
    other = lb.add("other", upstream, alpn=("postgresql",))
    for port, offered, chosen in (
        (lb.port, ("http/1.1", "h2"), "h2"),
        (lb.port, ("http/1.1",), "http/1.1"),
        (lb.port, (), None),
        (other.port, ("postgresql",), "postgresql"),
    ):
        with connect(pki, port, alpn=offered) as client:
            assert client.tls.selected_alpn_protocol() == chosen
            client.echo(b"x")


def test_the_chain_we_show_is_the_one_in_the_file(balance: MakeBalancer, upstream: Upstream) -> None:
    """Nothing is added from the CAs of the clients, which here is the one that issued it."""
    lb = balance(upstream)
    alice = lb.pki.alice
    seen = s_client(
        require_server("openssl"), lb.port, "-showcerts", "-cert", str(alice.cert), "-key", str(alice.key),
        send=b"hello there\n",
    )  # fmt: skip
    assert (" 0 s:" in seen, " 1 s:" in seen) == (True, False)


def test_the_client_is_told_which_ca_to_choose_from(balance: MakeBalancer, upstream: Upstream) -> None:
    openssl = require_server("openssl")
    lb = balance(upstream)
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key),
        send=b"hello there\n",
    )  # fmt: skip
    assert "Acceptable client certificate CA names\nCN = test-ca" in seen


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("group", ["X25519", "P-256", "P-384"])
def test_suites_and_groups(balance: MakeBalancer, upstream: Upstream, suite: str, group: str) -> None:
    openssl = require_server("openssl")
    lb = balance(upstream)
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-ciphersuites", suite, "-groups", group, "-brief",
        "-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key), send=b"hello there\n",
    )  # fmt: skip
    assert "hello there" in seen
    assert lb.record(event="conn.close").cipher == suite


@pytest.mark.parametrize("group", ["P-521", "ffdhe2048", "X448"])
def test_groups_that_cost_too_much_are_refused(balance: MakeBalancer, upstream: Upstream, group: str) -> None:
    openssl = require_server("openssl")
    lb = balance(upstream)
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-groups", group,
        "-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key),
    )  # fmt: skip
    assert seen.status != 0
    assert lb.record(event="conn.deny").reason == "handshake_failed"


def test_curl_without_a_certificate_fails(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    program = require_server("curl")
    lb = balance(upstream)
    assert curl(program, pki, f"https://localhost:{lb.port}/", None).status != 0
    assert lb.record(event="conn.deny").reason == "no_certificate"


def test_whoever_is_refused_sees_no_clean_end(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    assert outcome(lb.port, client_context(pki, pki.rogue.issue("mallory"))) is REFUSED
