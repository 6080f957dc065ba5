"""Stages 1 and 2: a balancer in front of us says who the client is, and nobody else can."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect, outcome, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.proxy_header import (
    LOCAL,
    NOOP,
    PROXY,
    SIGNATURE,
    UNIX,
    UNSPEC,
    Header,
    binary,
    block,
    encode_field,
    line,
    read_header,
    with_checksum,
)
from kit.servers import Server, free_port, require_server
from kit.sockets import End, read_exactly, read_to_end, reset
from kit.upstreams import Session, Upstream, echo, greeter
from kit.waiting import wait_until

import lbcore

LOOPBACK = ("127.0.0.1",)
FOUR = "192.0.2.1:51044", "198.51.100.2:443"
SIX = "[2001:db8::1]:51044", "[2001:db8::2]:443"
DEADLINE = 0.6
#: Seconds for something that happens at once.
SOON = 3.0


def say(lb: Balancer, header: bytes) -> TlsClient:
    """A client behind a balancer that says `header`, before its handshake."""
    client = TlsClient(lb.port, client_context(lb.pki, lb.pki.alice))
    client.sock.sendall(header)
    return client


def visit(lb: Balancer, header: bytes) -> str:
    """Echoes once behind `header`; the address of the balancer in front."""
    with say(lb, header) as client:
        client.handshake().echo(b"the first byte of the client")
        return client.source


# ---- who it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["4", "6"])
@pytest.mark.parametrize("write", [line, binary, with_checksum], ids=["v1", "v2", "checksum"])
def test_the_header_says_who_the_client_is(
    balance: MakeBalancer, upstream: Upstream, ends: tuple[str, str], write: Callable[[str, str], bytes]
) -> None:
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    with say(lb, write(*ends)) as client:
        client.handshake().echo(b"x")
        [connection] = lb.engine.connections()
    record = lb.record()
    assert (connection["source"], record.source) == (ends[0], ends[0])
    assert (record.client, record.reason, record.bytes_in) == ("alice", "client_closed", 1)


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN 192.0.2.1 198.51.100.2 1 2\r\n",
        block(LOCAL, UNSPEC),
        block(LOCAL, 0x11, bytes(12)),
        block(PROXY, UNSPEC, b"any"),
        block(PROXY, UNIX, b"/run/socket".ljust(108, b"\0") * 2),
    ],
    ids=["unknown", "unknown with more", "local", "local with more", "unspecified", "unix"],
)
def test_without_an_address_it_is_the_peer(balance: MakeBalancer, upstream: Upstream, header: bytes) -> None:
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    source = visit(lb, header)
    assert lb.record().source == source


def test_an_authorizer_is_told(balance: MakeBalancer, upstream: Upstream) -> None:
    asked = []

    def decide(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
        asked.append(peer.source)
        return lbcore.Verdict(True, client="alice")

    visit(balance(upstream, authorize=decide, proxy_protocol_from=LOOPBACK), line(*FOUR))
    assert asked == [FOUR[0]]


def test_the_other_workers_too(balance: MakeBalancer, upstream: Upstream) -> None:
    """A socket that is handed over takes the question with it."""
    lb = balance(upstream, proxy_protocol_from=LOOPBACK, engine={"workers": 4})
    sources = [f"192.0.2.{number}:1000" for number in range(16)]
    with contextlib.ExitStack() as stack:
        for source in sources:
            client = stack.enter_context(say(lb, line(source, FOUR[1])))
            client.handshake().echo(b"x")
        assert sorted(connection["source"] for connection in lb.engine.connections()) == sorted(sources)
        assert all(worker["open"] for worker in lb.engine.stats()["workers"])


# ---- how it comes --------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [line(*SIX), with_checksum(*FOUR)], ids=["v1", "v2"])
def test_in_single_bytes(balance: MakeBalancer, upstream: Upstream, header: bytes) -> None:
    """Each byte wakes the worker once, and what is left in the socket does not."""
    lb = balance(upstream, proxy_protocol_from=LOOPBACK, engine={"workers": 1})
    with say(lb, b"") as client:
        for byte in header[:-1]:
            client.sock.sendall(bytes([byte]))
        wait_until(lambda: lb.stages() == ["handshake"])
        before = wakeups(lb)
        time.sleep(0.5)  # the time in which nothing happens
        assert wakeups(lb) - before <= 3
        client.sock.sendall(header[-1:])
        client.handshake().echo(b"x")
    assert lb.record().reason == "client_closed"


def wakeups(lb: Balancer) -> int:
    return sum(worker["wakeups"] for worker in lb.engine.stats()["workers"])


@pytest.mark.parametrize("header", [line(*FOUR), binary(*FOUR)], ids=["v1", "v2"])
def test_in_one_segment_with_the_hello(balance: MakeBalancer, upstream: Upstream, header: bytes) -> None:
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    with say(lb, b"") as client:
        client.sock.sendall(header + client.first_flight())
        client.handshake().echo(b"x")
    assert lb.record().source == FOUR[0]


@pytest.mark.parametrize("header", [line(*FOUR), binary(*FOUR)], ids=["v1", "v2"])
def test_cut_anywhere(balance: MakeBalancer, upstream: Upstream, header: bytes) -> None:
    """In two segments, the second one with the hello."""
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    for at in range(1, len(header), 5):
        with say(lb, header[:at]) as client:
            client.sock.sendall(header[at:] + client.first_flight())
            client.handshake().echo(b"x")
    assert {record.source for record in lb.records.wait(len(range(1, len(header), 5)))} == {FOUR[0]}


def test_the_longest(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    header = binary(*SIX, encode_field(NOOP, bytes(4096 - 36 - 3)))
    assert len(header) == 16 + 4096
    visit(lb, header)
    assert lb.record().source == SIX[0]


# ---- plaintext -----------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [line(*FOUR), binary(*FOUR)], ids=["v1", "v2"])
@pytest.mark.parametrize("apart", [False, True])
def test_plaintext(balance: MakeBalancer, upstream: Upstream, keep: Keep, header: bytes, apart: bool) -> None:
    """The upstream gets what follows the header, and only that."""
    lb = balance(upstream, plaintext=True, proxy_protocol_from=LOOPBACK)
    data = bytes(range(256)) * 1000
    sock = keep(plain(lb.port))
    if apart:
        sock.sendall(header)
        lb.wait_open(1)
        sock.sendall(data)
    else:
        sock.sendall(header + data)
    assert read_exactly(sock, len(data)) == data
    [connection] = lb.engine.connections()
    assert connection["source"] == FOUR[0]
    sock.shutdown(socket.SHUT_WR)
    assert read_to_end(sock) == (b"", End.FIN)
    record = lb.record()
    assert (record.bytes_in, record.bytes_out, record.source) == (len(data), len(data), FOUR[0])


def test_header_data_and_end_in_one_go(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    lb = balance(upstream, plaintext=True, proxy_protocol_from=LOOPBACK)
    sock = keep(plain(lb.port))
    sock.sendall(line(*FOUR) + b"all there is")
    sock.shutdown(socket.SHUT_WR)
    assert read_to_end(sock) == (b"all there is", End.FIN)


def test_the_rest_and_the_end_just_behind_the_beginning(balance: MakeBalancer, upstream: Upstream) -> None:
    """They arrive while the beginning is looked at, and must not pass for an end in the middle of it."""
    lb = balance(upstream, plaintext=True, proxy_protocol_from=LOOPBACK, engine={"workers": 1})
    header = line(*FOUR)
    for number in range(400):
        with plain(lb.port) as sock:
            wait_until(lambda: lb.engine.stats()["unauthenticated"] == 1)
            sock.sendall(header[:20])
            for _ in range(number % 40):
                pass  # a microsecond more or less
            sock.sendall(header[20:] + b"x")
            sock.shutdown(socket.SHUT_WR)
            assert read_to_end(sock) == (b"x", End.FIN)


def test_a_server_that_speaks_first(balance: MakeBalancer, keep: Keep) -> None:
    upstream = keep(Upstream(greeter(b"hello")))
    lb = balance(upstream, plaintext=True, proxy_protocol_from=LOOPBACK)
    sock = keep(plain(lb.port))
    wait_until(lambda: lb.stages() == ["handshake"])
    assert upstream.accepted == 0
    sock.sendall(binary(*FOUR))
    assert read_exactly(sock, 5) == b"hello"
    sock.sendall(b"x")
    assert read_exactly(sock, 1) == b"x"


def test_limits_count_who_the_header_says(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    limits = lbcore.LimitClass(max_open=1)
    lb = balance(upstream, plaintext=True, source_limits=limits, proxy_protocol_from=LOOPBACK)

    def served(source: str, write: Callable[[str, str], bytes]) -> bool:
        sock = keep(plain(lb.port))
        sock.sendall(write(source, FOUR[1] if "." in source else SIX[1]) + b"x")
        return sock.recv(1) == b"x"

    assert served("192.0.2.1:1", line)
    assert served("192.0.2.2:1", binary)
    assert served("[2001:db8::1]:1", line)
    assert not served("192.0.2.1:2", binary)
    assert not served("[2001:db8::2]:1", binary)  # the same /64
    refused = lb.records.wait(2, reason="concurrent")
    assert {record.source for record in refused} == {"192.0.2.1:2", "[2001:db8::2]:1"}


# ---- who is not believed -------------------------------------------------------------------------


@pytest.mark.parametrize("networks", [(), ("10.0.0.0/8", "127.0.0.2", "::/0")], ids=["off", "others"])
@pytest.mark.parametrize("header", [line(*FOUR), binary(*FOUR)], ids=["v1", "v2"])
def test_a_header_of_somebody_else_is_not_tls(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, networks: tuple[str, ...], header: bytes
) -> None:
    lb = balance(upstream, proxy_protocol_from=networks)
    sock = keep(plain(lb.port))
    sock.sendall(header)
    record = lb.record(reason="not_tls")
    assert record.source == "{}:{}".format(*sock.getsockname())
    with connect(lb.pki, lb.port) as client:
        client.echo(b"x")  # who is not listed says no header
    assert upstream.accepted == 1


def test_on_plaintext_it_is_data(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    lb = balance(upstream, plaintext=True, proxy_protocol_from=["127.0.0.2"])
    sock = keep(plain(lb.port))
    sock.sendall(line(*FOUR))
    assert read_exactly(sock, len(line(*FOUR))) == line(*FOUR)
    [connection] = lb.engine.connections()
    assert connection["source"] == "{}:{}".format(*sock.getsockname())


@pytest.mark.parametrize("networks", [["127.0.0.0/8"], ["::ffff:127.0.0.0/104"], ["::1", "127.0.0.1/32"]])
def test_ipv4_on_a_socket_for_both_is_ipv4(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, networks: list[str]
) -> None:
    lb = balance(upstream)
    both = lb.add("both", upstream, plaintext=True, address="[::]:0", proxy_protocol_from=networks)
    sock = keep(plain(both.port))
    sock.sendall(line(*SIX) + b"x")
    assert read_exactly(sock, 1) == b"x"
    assert [connection["source"] for connection in lb.engine.connections()] == [SIX[0]]


def test_ipv6_peers(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    lb = balance(upstream)
    both = lb.add("both", upstream, plaintext=True, address="[::]:0", proxy_protocol_from=["::1"])
    sock = keep(socket.create_connection(("::1", both.port), timeout=10))
    sock.sendall(line(*FOUR) + b"x")
    assert read_exactly(sock, 1) == b"x"
    other = keep(plain(both.port))
    other.sendall(b"y")
    assert read_exactly(other, 1) == b"y"
    sources = {connection["source"] for connection in lb.engine.connections()}
    assert sources == {FOUR[0], "{}:{}".format(*other.getsockname())}


# ---- what is no header ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
        b"PROXY TCP4 " + b"1" * 96,
        b"PROXY UNKNOWN" + b" " * 95,
        SIGNATURE + b"\x11\x11\x00\x0c",
        SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
        SIGNATURE + b"\x21\x11\x10\x01",
        with_checksum(*FOUR)[:-1] + b"?",
    ],
    ids=["http", "zero", "three words", "long", "long unknown", "version 1", "short", "too long", "checksum"],
)
@pytest.mark.parametrize("plaintext", [False, True])
def test_what_is_none_is_refused_at_once(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, first: bytes, plaintext: bool
) -> None:
    lb = balance(upstream, plaintext=plaintext, proxy_protocol_from=LOOPBACK)
    sock = keep(plain(lb.port))
    sock.sendall(first)
    with contextlib.suppress(ConnectionResetError):  # of bytes that nobody read
        assert sock.recv(1) == b""
    record = lb.record()
    assert (record.event, record.stage, record.reason) == ("conn.deny", "handshake", "bad_proxy_header")
    assert record.source == "{}:{}".format(*sock.getsockname())
    assert record.duration_ms < SOON * 1000
    assert upstream.accepted == 0
    assert lb.app.stats()["ended"]["bad_proxy_header"] == 1


def test_tls_without_one(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    assert outcome(lb.port, client_context(pki, pki.alice)) in (End.FIN, End.RESET)
    assert lb.record().reason == "bad_proxy_header"
    assert upstream.accepted == 0


def test_a_second_one_is_not_tls(balance: MakeBalancer, upstream: Upstream) -> None:
    """One hop is believed, not whoever the first one forwards."""
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    with say(lb, line(*FOUR) + line(*SIX)):
        record = lb.record()
    assert (record.reason, record.source) == ("not_tls", FOUR[0])


# ---- who does not finish -------------------------------------------------------------------------


@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize(
    "first", [b"", b"PROXY TCP4", SIGNATURE + b"\x21\x11\x00"], ids=["silent", "v1", "v2"]
)
def test_a_header_has_the_handshakes_deadline(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, plaintext: bool, first: bytes
) -> None:
    lb = balance(
        upstream, plaintext=plaintext, proxy_protocol_from=LOOPBACK, engine={"handshake_timeout": DEADLINE}
    )
    keep(plain(lb.port)).sendall(first)
    record = lb.record()
    assert (record.event, record.stage, record.reason) == ("conn.deny", "handshake", "handshake_timeout")
    assert DEADLINE <= record.duration_ms / 1000 < DEADLINE + 0.5
    assert upstream.accepted == 0


def test_the_deadline_counts_from_accept(balance: MakeBalancer, upstream: Upstream) -> None:
    """A header in time buys no time for the handshake."""
    lb = balance(upstream, proxy_protocol_from=LOOPBACK, engine={"handshake_timeout": DEADLINE})
    with say(lb, b"") as client:
        time.sleep(DEADLINE / 2)  # the delay
        client.sock.sendall(line(*FOUR))
        record = lb.record(reason="handshake_timeout")
    assert record.source == FOUR[0]
    assert DEADLINE <= record.duration_ms / 1000 < DEADLINE + 0.5


def test_after_it_a_plaintext_client_may_be_silent(
    balance: MakeBalancer, upstream: Upstream, keep: Keep
) -> None:
    lb = balance(
        upstream, plaintext=True, proxy_protocol_from=LOOPBACK, engine={"handshake_timeout": DEADLINE}
    )
    sock = keep(plain(lb.port))
    sock.sendall(line(*FOUR))
    lb.wait_open(1)
    time.sleep(2 * DEADLINE)  # the silence
    sock.sendall(b"x")
    assert read_exactly(sock, 1) == b"x"


@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize(
    "first", [b"", line(*FOUR)[:-1], binary(*FOUR)[:-1], SIGNATURE[:3]], ids=["at once", "v1", "v2", "early"]
)
@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
def test_who_leaves_halfway_is_gone(
    balance: MakeBalancer,
    upstream: Upstream,
    plaintext: bool,
    first: bytes,
    leave: Callable[[socket.socket], None],
) -> None:
    lb = balance(upstream, plaintext=plaintext, proxy_protocol_from=LOOPBACK)
    sock = plain(lb.port)
    sock.sendall(first)
    wait_until(lambda: lb.stages() == ["handshake"])
    leave(sock)
    record = lb.record()
    assert (record.stage, record.reason) == ("handshake", "client_gone")
    assert record.duration_ms < SOON * 1000
    assert upstream.accepted == 0


@pytest.mark.parametrize("first", [b"PROXY TCP4", SIGNATURE], ids=["v1", "v2"])
def test_who_sends_a_part_and_ends_in_one_go(balance: MakeBalancer, upstream: Upstream, first: bytes) -> None:
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    for _ in range(20):
        with plain(lb.port) as sock:
            sock.sendall(first)
    assert {record.reason for record in lb.records.wait(20)} == {"client_gone"}


# ---- strangers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("plaintext", [False, True])
def test_until_then_it_is_a_stranger(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, plaintext: bool
) -> None:
    """The oldest of them goes when there are too many, and none takes a client's place."""
    lb = balance(
        upstream,
        plaintext=plaintext,
        proxy_protocol_from=LOOPBACK,
        engine={"workers": 1, "max_unauthenticated": 3},
    )
    socks = []
    for number in range(4):
        socks.append(keep(plain(lb.port)))
        wait_until(lambda: len(lb.stages()) == min(number + 1, 3))  # noqa: B023
    record = lb.record(reason="unauthenticated_full")
    assert record.source == "{}:{}".format(*socks[0].getsockname())
    stats = lb.engine.stats()
    assert (stats["open"], stats["unauthenticated"]) == (0, 3)


def test_after_it_plaintext_counts_as_a_connection(
    balance: MakeBalancer, upstream: Upstream, keep: Keep
) -> None:
    lb = balance(
        upstream, plaintext=True, proxy_protocol_from=LOOPBACK, engine={"workers": 1, "max_connections": 1}
    )
    early, late = keep(plain(lb.port)), keep(plain(lb.port))
    wait_until(lambda: lb.engine.stats()["unauthenticated"] == 2)
    early.sendall(line(*FOUR))
    lb.wait_open(1)
    stats = lb.engine.stats()
    assert (stats["open"], stats["unauthenticated"]) == (1, 1)
    late.sendall(line(*SIX))
    assert read_to_end(late) == (b"", End.FIN)
    record = lb.record(reason="node_full")
    assert (record.stage, record.source) == ("accept", SIX[0])


# ---- chains --------------------------------------------------------------------------------------


class Told:
    """An upstream that reads a header and then echoes."""

    def __init__(self) -> None:
        self.headers: list[Header] = []

    def __call__(self, session: Session) -> None:
        self.headers.append(read_header(session.sock))
        echo(session)


@pytest.mark.parametrize("version", ["v1", "v2", "v2+tls"])
@pytest.mark.parametrize("ends", [FOUR, SIX], ids=["4", "6"])
def test_what_it_says_is_passed_on(
    balance: MakeBalancer, keep: Keep, version: str, ends: tuple[str, str]
) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), proxy_protocol_from=LOOPBACK, app={"proxy_protocol": version})
    visit(lb, binary(*ends))
    assert (told.headers[0].source, told.headers[0].target) == ends


def test_what_it_does_not_say_is_ours(balance: MakeBalancer, keep: Keep) -> None:
    told = Told()
    lb = balance(keep(Upstream(told)), proxy_protocol_from=LOOPBACK, app={"proxy_protocol": "v2"})
    source = visit(lb, block(LOCAL, UNSPEC))
    assert (told.headers[0].source, told.headers[0].target) == (source, f"127.0.0.1:{lb.port}")


def test_ipv4_inside_of_ipv6_at_one_end(balance: MakeBalancer, keep: Keep) -> None:
    """Then both are told as IPv6."""
    told = Told()
    lb = balance(keep(Upstream(told)), proxy_protocol_from=LOOPBACK, app={"proxy_protocol": "v2"})
    inside = ipaddress.IPv6Address("::ffff:192.0.2.1")
    visit(lb, line(f"[{inside}]:1", SIX[1]))
    assert (told.headers[0].source, told.headers[0].target) == (f"[{inside}]:1", SIX[1])


@pytest.mark.parametrize("version", ["v1", "v2", "v2+tls"])
def test_two_of_ours_in_a_row(balance: MakeBalancer, upstream: Upstream, version: str) -> None:
    """The first one shakes no hands: TLS is the second one's."""
    behind = balance(upstream, proxy_protocol_from=LOOPBACK)
    front = balance(f"127.0.0.1:{behind.port}", plaintext=True, app={"proxy_protocol": version})
    with connect(front.pki, front.port) as client:
        client.echo(b"x" * 100_000)
        source = client.source
    assert (front.record().source, behind.record().source) == (source, source)


HAPROXY = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 20s
    timeout server 20s
listen front
    bind 127.0.0.1:{port}
    server behind 127.0.0.1:{target} {option}
"""


def haproxy(keep: Keep, folder: Path, lb: Balancer, option: str) -> int:
    """HAProxy in front of it; its port."""
    port = free_port()
    config = folder / "haproxy.cfg"
    config.write_text(HAPROXY.format(port=port, target=lb.port, option=option))
    keep(Server([require_server("haproxy"), "-db", "-f", str(config)], port, folder / "output"))
    return port


@pytest.mark.parametrize(
    "option",
    [
        "send-proxy",
        "send-proxy-v2",
        "send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl,cert-cn",
    ],
)
def test_haproxy_in_front(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, tmp_path: Path, option: str
) -> None:
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    port = haproxy(keep, tmp_path, lb, option)
    with connect(lb.pki, port) as client:
        client.echo(b"x" * 100_000)
        source = client.source
    assert lb.record(client="alice").source == source
    assert not lb.records.all(reason="bad_proxy_header")


@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_haproxys_health_checks(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, tmp_path: Path, option: str
) -> None:
    """They speak for themselves, so the peer's address stays, and nobody is dialled for them."""
    lb = balance(upstream, proxy_protocol_from=LOOPBACK)
    haproxy(keep, tmp_path, lb, option + " check check-send-proxy inter 100ms")
    assert {record.source.partition(":")[0] for record in lb.records.wait(5)} == {"127.0.0.1"}
    assert not lb.records.all(reason="bad_proxy_header")
    assert upstream.accepted == 0


# ---- what makes no sense -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks", "kind", "message"),
    [
        ("10.0.0.0/8", TypeError, "a sequence of networks"),
        (None, TypeError, "a sequence of networks"),
        ([10], TypeError, "networks as text"),
        ([""], ValueError, "does not appear to be"),
        (["10.0.0.1/8"], ValueError, "has host bits set"),
        (["10.0.0.0/33"], ValueError, "does not appear to be"),
        (["lb.example"], ValueError, "does not appear to be"),
        (["fe80::1%lo"], ValueError, "without a zone|does not appear to be"),
        (["127.0.0.1"] * 65, ValueError, "at most 64"),
    ],
)
def test_networks_that_make_no_sense(
    balance: MakeBalancer, upstream: Upstream, networks: object, kind: type[Exception], message: str
) -> None:
    lb = balance(upstream)
    with pytest.raises(kind, match=f"proxy_protocol_from: .*({message})"):
        lb.add("other", upstream, proxy_protocol_from=networks)  # type: ignore[arg-type]


def test_as_many_networks_as_there_may_be(balance: MakeBalancer, upstream: Upstream) -> None:
    others = [f"10.{number}.0.0/16" for number in range(63)]
    lb = balance(upstream, proxy_protocol_from=[*others, "127.0.0.1"])
    visit(lb, line(*FOUR))
    assert lb.record().source == FOUR[0]
