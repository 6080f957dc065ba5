"""Stage 8, forward: an abort of one side is one for the other side, at once, after what came before it."""

from __future__ import annotations

import random
import select
import time

import pytest
from kit.balancer import Balancer, Stopwatch, Thinker
from kit.clients import TlsClient, connect, plain
from kit.faults import Ending, Faults, FaultyProxy
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.records import ALERT, RecordClient
from kit.sockets import End, read_to_end, reset
from kit.upstreams import Script, Session, Upstream, hold, sink
from kit.waiting import wait_until

AT_ONCE = 1.0  # seconds within which an abort must be passed on
IN_THE_MIDDLE = 300_000  # bytes after which it comes
BLOCK = bytes(1 << 16)
GONE = (ConnectionResetError, BrokenPipeError)
SLOWLY = 240_000  # bytes that take it more than a second
SIZES = [1, 16_385, 3 << 20]


@pytest.fixture(params=[False, True], ids=["tls", "plaintext"])
def plaintext(request: pytest.FixtureRequest) -> bool:
    """Both kinds of listeners."""
    return bool(request.param)


def pattern(size: int) -> bytes:
    """Bytes that show when some are lost, doubled or out of order."""
    return random.Random(size).randbytes(size)


class Client:
    """A client of either kind, whose connection is past every earlier stage."""

    def __init__(self, lb: Balancer, pki: Pki, *, plaintext: bool, port: int | None = None) -> None:
        self._tls: TlsClient | None = None
        if plaintext:
            self.sock = plain(port or lb.port)
        else:
            self._tls = connect(pki, port or lb.port)
            self.sock = self._tls.sock
        lb.wait_open(1)

    def send(self, data: bytes) -> None:
        if self._tls is None:
            self.sock.sendall(data)
        else:
            self._tls.send(data)

    def send_on(self) -> None:
        """Until the socket refuses."""
        while True:
            self.send(BLOCK)

    def receive_to_end(self) -> tuple[bytes, End]:
        return read_to_end(self.sock) if self._tls is None else self._tls.receive_to_end()

    def close(self) -> None:
        if self._tls is None:
            self.sock.close()
        else:
            self._tls.close()


def flood(session: Session) -> None:
    """Sends until it is reset."""
    try:
        while True:
            session.sock.sendall(BLOCK)
    except GONE:
        session.ended = End.RESET


def send_when_asked(data: bytes) -> Script:
    """After the first byte, when the balancer is past its dial; then collects."""

    def run(session: Session) -> None:
        session.sock.recv(1)
        session.sock.sendall(data)
        session.collect()

    return run


# ---- at once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_a_reset_of_a_quiet_connection_is_passed_on_at_once(
    balance: MakeBalancer, keep: Keep, pki: Pki, who: str, plaintext: bool
) -> None:
    upstream = keep(Upstream(sink if who == "client" else hold))
    lb = balance(upstream, plaintext=plaintext)
    client = keep(Client(lb, pki, plaintext=plaintext))
    session = upstream.session()
    watch = Stopwatch()
    if who == "client":
        reset(client.sock)
        assert session.wait_end() is End.RESET
    else:
        reset(session.sock)
        assert client.receive_to_end() == (b"", End.RESET)
    assert watch.seconds < AT_ONCE
    assert lb.record().reason == f"{who}_reset"


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("who", ["client", "upstream"])
def test_a_reset_while_bytes_flow_is_passed_on_at_once(
    balance: MakeBalancer, keep: Keep, pki: Pki, who: str, direction: str, plaintext: bool
) -> None:
    """The proxy stands on the side that resets, and knows when it did."""
    upstream = keep(Upstream(sink if direction == "up" else flood))
    fault = {direction: Faults(end_after=IN_THE_MIDDLE, ending=Ending.RESET)}
    if who == "client":
        lb = balance(upstream, plaintext=plaintext)
        proxy = keep(FaultyProxy(lb.port, **fault))
        client = keep(Client(lb, pki, plaintext=plaintext, port=proxy.port))
    else:
        proxy = keep(FaultyProxy(upstream.port, **fault))
        lb = balance(proxy, plaintext=plaintext)
        client = keep(Client(lb, pki, plaintext=plaintext))
    if direction == "down":
        assert client.receive_to_end()[1] is End.RESET
    else:
        with pytest.raises(GONE):
            client.send_on()
    assert upstream.session().wait_end() is End.RESET
    ended = proxy.link().ended
    assert ended is not None
    assert time.monotonic() - ended < AT_ONCE
    assert lb.record().reason == f"{who}_reset"


def test_a_clients_reset_does_not_wait_for_a_stalled_upstream(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    """Whoever resets does not ask for delivery."""
    upstream = keep(Upstream(hold, receive_buffer=4096))
    lb = balance(upstream, plaintext=plaintext)
    client = keep(Client(lb, pki, plaintext=plaintext))
    client.sock.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.send_on()
    hang_ups = select.poll()
    hang_ups.register(upstream.session().sock, 0)  # hang-ups and errors are told always (poll(2))
    assert hang_ups.poll(0) == []
    reset(client.sock)
    [(_, event)] = hang_ups.poll(AT_ONCE * 1000)
    assert event & select.POLLERR
    assert lb.record().reason == "client_reset"


# ---- after what came before it -------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_what_came_before_an_upstreams_reset_is_delivered(
    balance: MakeBalancer, keep: Keep, pki: Pki, size: int, plaintext: bool
) -> None:
    upstream = keep(Upstream(send_when_asked(pattern(size) + BLOCK)))
    proxy = keep(FaultyProxy(upstream.port, down=Faults(end_after=size, ending=Ending.RESET)))
    lb = balance(proxy, plaintext=plaintext)
    client = keep(Client(lb, pki, plaintext=plaintext))
    client.send(b"x")
    assert client.receive_to_end() == (pattern(size), End.RESET)
    ended = proxy.link().ended
    assert ended is not None
    assert time.monotonic() - ended < AT_ONCE
    record = lb.record()
    assert (record.reason, record.bytes_in, record.bytes_out) == ("upstream_reset", 1, size)


def test_a_slow_reader_has_all_of_it_before_the_reset(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    """While it goes on taking something it is not reset, although the upstream has been gone for longer than
    nothing may be taken: its bytes wait in the kernel."""
    data = pattern(SLOWLY)
    upstream = keep(Upstream(send_when_asked(data)))
    behind = keep(FaultyProxy(upstream.port, down=Faults(end_after=len(data), ending=Ending.RESET)))
    lb = balance(behind, plaintext=plaintext)
    slow = Faults(segment=8192, pause=0.02)
    before = keep(FaultyProxy(lb.port, down=slow, receive_buffer=4096))
    client = keep(Client(lb, pki, plaintext=plaintext, port=before.port))
    client.send(b"x")
    assert client.receive_to_end() == (data, End.RESET)
    ended = behind.link().ended
    assert ended is not None
    assert time.monotonic() - ended > AT_ONCE
    assert lb.record().reason == "upstream_reset"


@pytest.mark.parametrize("cut", [1, 4, 5, 6, -1])
def test_a_client_that_vanishes_inside_a_record(
    balance: MakeBalancer, keep: Keep, pki: Pki, cut: int
) -> None:
    """What was whole is delivered, then the upstream is reset; of the rest not a byte."""
    upstream = keep(Upstream(sink))
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        lb.wait_open(1)
        client.sock.sendall(client.seal(b"whole") + client.seal(b"never whole")[:cut])
        client.send_fin()
        assert client.receive_to_end() == (b"", End.RESET)
    assert upstream.session().wait_end() is End.RESET
    assert bytes(upstream.session().received) == b"whole"
    record = lb.record()
    assert (record.reason, record.bytes_in) == ("client_truncated", 5)


# ---- alerts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_truncated", ["reset", "eof"])
@pytest.mark.parametrize("description", [20, 200], ids=["bad_record_mac", "of no standard"])
def test_a_fatal_alert_is_an_abort(
    balance: MakeBalancer, keep: Keep, pki: Pki, description: int, on_truncated: str
) -> None:
    """Never an end that looks clean, whatever the alert is called and whatever a bare FIN is taken for."""
    upstream = keep(Upstream(sink))
    lb = balance(upstream, app={"on_truncated": on_truncated})
    with RecordClient(pki, lb.port) as client:
        client.send(b"whole")
        wait_until(lambda: upstream.sessions and bytes(upstream.session().received) == b"whole", "it arrives")
        client.sock.sendall(client.seal(bytes([2, description]), ALERT))
        assert upstream.session().wait_end() is End.RESET
    record = lb.record()
    assert (record.reason, record.bytes_in) == ("client_reset", 5)
    assert record.tls_error


def test_a_fatal_alert_before_the_verdict(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    policy = Thinker(10.0)
    lb = balance(upstream, authorize=policy, engine={"authorize_timeout": 10.0})
    with RecordClient(pki, lb.port) as client:
        assert policy.thinking.wait(10)
        client.sock.sendall(client.seal(bytes([2, 200]), ALERT))
        record = lb.record(reason="client_gone")
        policy.answered.set()
    assert record.tls_error
    assert upstream.accepted == 0


def test_an_abort_has_an_end(balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool) -> None:
    """A reader that takes a little now and then keeps a connection whose upstream is gone no longer than
    `half_close_timeout`."""
    data = pattern(SLOWLY)
    upstream = keep(Upstream(send_when_asked(data)))
    behind = keep(FaultyProxy(upstream.port, down=Faults(end_after=len(data), ending=Ending.RESET)))
    lb = balance(behind, plaintext=plaintext, app={"half_close_timeout": 1.0})
    trickle = Faults(segment=256, pause=0.05)
    before = keep(FaultyProxy(lb.port, down=trickle, receive_buffer=4096))
    client = keep(Client(lb, pki, plaintext=plaintext, port=before.port))
    client.send(b"x")
    record = lb.record()
    ended = behind.link().ended
    assert ended is not None
    assert 1.0 <= time.monotonic() - ended < 1.0 + AT_ONCE
    assert record.reason == "upstream_reset"
    received, end = client.receive_to_end()
    assert end is End.RESET
    assert len(received) < len(data)
