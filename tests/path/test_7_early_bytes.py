"""Stage 7, dial: what a client says before it is over goes to whoever is reached, once and in order.

The clients here have spoken by the time of the dial, however busy the machine is: their bytes are in one
segment with what has to come before, a PROXY header or the end of the handshake.
"""

from __future__ import annotations

import random
import socket

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import PlainClient, TlsClient, client_context, connect
from kit.fixtures import Keep, MakeBalancer
from kit.leaks import check_rest
from kit.memory import anonymous_bytes
from kit.pki import Pki
from kit.proxy_header import line
from kit.sockets import End, read_exactly, reset
from kit.tls_upstream import TlsSession, tls_upstream
from kit.upstreams import Blackhole, Refuser, Session, Upstream, greeter, sink
from kit.waiting import wait_until

from lbcore import UpstreamServer, UpstreamTLS

HELD = 16384  # what is held for a client that nobody was reached for yet
SIZES = [1, 1000, HELD - 1, HELD, HELD + 1, 40_000, 300_000]
HEADER = line("192.0.2.1:51044", "198.51.100.2:443")

Client = TlsClient | PlainClient


def pattern(size: int) -> bytes:
    """Bytes that show when some are lost, doubled or out of order."""
    return random.Random(size).randbytes(size)


class Listener:
    """A balancer whose clients speak before the dial; on one worker, which knows the verdict on them."""

    def __init__(self, lb: Balancer, *, plaintext: bool) -> None:
        self.lb = lb
        self._plaintext = plaintext
        if not plaintext:
            self._ask_for_the_verdict()

    @property
    def held_most(self) -> int:
        """With TLS the part of a record that the library has already comes on top of it."""
        return HELD if self._plaintext else 2 * HELD

    @property
    def clean(self) -> End:
        """How a client sees a proper end."""
        return End.FIN if self._plaintext else End.CLOSE_NOTIFY

    def speak(self, data: bytes, *, ends: bool = False) -> Client:
        """One who has said all this, and with `ends` that it was all, before anybody is dialled for it."""
        client, said = self._plain(data) if self._plaintext else self._tls(data, ends=ends)
        try:
            # With MSG_MORE the end goes into the last segment (tcp(7), TCP_CORK).
            client.sock.sendall(said, socket.MSG_MORE if ends else 0)
            if ends:
                client.sock.shutdown(socket.SHUT_WR)
        except BaseException:
            client.close()
            raise
        return client

    def say(self, client: Client, data: bytes) -> None:
        client.send(data) if isinstance(client, TlsClient) else client.sock.sendall(data)

    def end(self, client: Client) -> None:
        """Nothing more comes from the client."""
        if isinstance(client, TlsClient):
            client.send_close_notify()
        client.sock.shutdown(socket.SHUT_WR)

    def held(self) -> int:
        """Bytes that are taken from the one client that is waiting."""
        [row] = self.lb.engine.connections()
        assert row["stage"] == "dial"
        taken: int = row["bytes_in"]
        return taken

    def wait_held(self, count: int) -> None:
        """Until so many are: TLS can give a little less, in whole records."""
        self.lb.wait_open(1, "dial")
        least = count if self._plaintext else min(count, HELD - 4096)
        wait_until(lambda: self.held() >= least, f"{count} bytes are held")

    def _plain(self, data: bytes) -> tuple[PlainClient, bytes]:
        return PlainClient(self.lb.port), HEADER + data

    def _tls(self, data: bytes, *, ends: bool) -> tuple[TlsClient, bytes]:
        client = TlsClient(self.lb.port, client_context(self.lb.pki, self.lb.pki.alice))
        said = client.last_flight() + (client.seal(data) if data else b"")
        return client, said + (client.seal_close_notify() if ends else b"")

    def _ask_for_the_verdict(self) -> None:
        """By one who leaves at once, and is not counted."""
        for server in self.lb.app.upstreams:
            server.drain()
        with connect(self.lb.pki, self.lb.port) as client:
            assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
        self.lb.record(reason="no_upstream")
        for server in self.lb.app.upstreams:
            server.resume()


@pytest.fixture(params=[True, False], ids=["plaintext", "tls"])
def plaintext(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def listener(balance: MakeBalancer, *upstreams: object, plaintext: bool, **app: object) -> Listener:
    options = {"proxy_protocol_from": ["127.0.0.1"]} if plaintext else {}
    app = {"passive_failures": 0, **app}
    lb = balance(*upstreams, plaintext=plaintext, app=app, engine={"workers": 1}, **options)
    return Listener(lb, plaintext=plaintext)


def collect(tls: TlsSession) -> None:
    """Reads to the end, and ends too."""
    tls.collect()
    if tls.session.ended is End.CLOSE_NOTIFY:
        tls.send_close_notify()


def server(upstream: Upstream, pki: Pki) -> UpstreamServer:
    return UpstreamServer(upstream.address, tls=UpstreamTLS(ca=pki.ca.cert))


@pytest.fixture
def slow(keep: Keep, pki: Pki) -> Upstream:
    """Begins to shake hands when its session is released, and collects: until then it is being dialled."""

    def wait(session: Session) -> None:
        session.released.wait()

    return keep(tls_upstream(pki, collect, before=wait))


@pytest.fixture
def failing(keep: Keep) -> Upstream:
    """Is dialled until its session is released, and then it breaks off."""

    def fail(session: Session) -> None:
        session.released.wait()
        reset(session.sock)

    return keep(Upstream(fail))


# ---- delivered -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", [True, False], ids=["with its end", "without"])
@pytest.mark.parametrize("size", SIZES)
def test_what_was_said_before_the_dial_arrives_once(
    balance: MakeBalancer, keep: Keep, plaintext: bool, size: int, ends: bool
) -> None:
    data = pattern(size)
    upstream = keep(Upstream(sink))
    front = listener(balance, upstream, plaintext=plaintext)
    with front.speak(data, ends=ends) as client:
        if not ends:
            wait_until(lambda: len(upstream.session().received) >= size, "it arrives before the end does")
            front.end(client)
        assert client.receive_to_end() == (b"", front.clean)
    assert upstream.session().wait_end() is End.FIN
    assert bytes(upstream.session().received) == data
    assert upstream.accepted == 1
    record = front.lb.record(event="conn.close")
    assert (record.reason, record.bytes_in, record.attempts) == ("client_closed", size, 1)


def test_what_follows_comes_after_it(balance: MakeBalancer, keep: Keep, plaintext: bool) -> None:
    data = pattern(100_000)
    upstream = keep(Upstream(sink))
    front = listener(balance, upstream, plaintext=plaintext)
    with front.speak(data[:1000]) as client:
        for start in range(1000, len(data), 9000):
            front.say(client, data[start : start + 9000])
        front.end(client)
        assert client.receive_to_end() == (b"", front.clean)
    assert bytes(upstream.session().received) == data


@pytest.mark.parametrize("ends", [True, False], ids=["with its end", "without"])
@pytest.mark.parametrize("size", [0, 1, HELD, HELD + 1, 100_000])
def test_while_the_dial_takes_its_time(
    balance: MakeBalancer, keep: Keep, pki: Pki, slow: Upstream, plaintext: bool, size: int, ends: bool
) -> None:
    """Held, no more than there may be, and the client's end is passed on behind it."""
    data = pattern(size)
    front = listener(balance, server(slow, pki), plaintext=plaintext, connect_timeout=30.0)
    with front.speak(data, ends=ends) as client:
        front.wait_held(min(size, HELD))
        slow.session()
        assert front.held() <= front.held_most
        check_rest([front.lb.engine])  # neither what is left in the socket nor the end wakes the worker
        slow.session().released.set()
        if not ends:
            front.end(client)
        assert client.receive_to_end() == (b"", front.clean)
    assert slow.session().wait_end() is End.CLOSE_NOTIFY
    assert bytes(slow.session().received) == data
    record = front.lb.record(event="conn.close")
    assert (record.reason, record.bytes_in) == ("client_closed", size)


def test_said_bit_by_bit_while_the_dial_takes_its_time(
    balance: MakeBalancer, keep: Keep, pki: Pki, slow: Upstream, plaintext: bool
) -> None:
    data = pattern(10_000)
    front = listener(balance, server(slow, pki), plaintext=plaintext, connect_timeout=30.0)
    with front.speak(data[:1000]) as client:
        for start in range(1000, len(data), 1000):
            front.wait_held(start)
            front.say(client, data[start : start + 1000])
        front.end(client)
        slow.session().released.set()
        assert client.receive_to_end() == (b"", front.clean)
    assert bytes(slow.session().received) == data


def test_no_more_is_held_than_may_be(
    balance: MakeBalancer, pki: Pki, slow: Upstream, plaintext: bool
) -> None:
    """Whatever is there already counts."""
    data = pattern(101_000)
    front = listener(balance, server(slow, pki), plaintext=plaintext, connect_timeout=30.0)
    with front.speak(data[:1000]) as client:
        front.wait_held(1000)
        front.say(client, data[1000:])
        front.wait_held(HELD)
        check_rest([front.lb.engine])
        assert front.held() <= front.held_most
        slow.session().released.set()
        front.end(client)
        assert client.receive_to_end() == (b"", front.clean)
    assert bytes(slow.session().received) == data


@pytest.mark.memory
def test_what_was_delivered_is_not_held_any_more(balance: MakeBalancer, keep: Keep) -> None:
    """While its connection goes on. Nobody accepts at the upstream, so only the balancer can grow."""
    front = listener(balance, keep(Upstream(accepting=False)), plaintext=True)
    data = bytes(HELD)

    def visit(count: int) -> None:
        for _ in range(count):
            keep(front.speak(data))

    visit(50)
    front.lb.wait_open(50)
    before = anonymous_bytes()
    visit(300)
    front.lb.wait_open(350)
    assert anonymous_bytes() - before < 300 * HELD // 2


def test_who_says_nothing_is_greeted(balance: MakeBalancer, keep: Keep, plaintext: bool) -> None:
    """A protocol in which the server speaks first: nothing waits for a byte of the client."""
    front = listener(balance, keep(Upstream(greeter(b"220 ready"))), plaintext=plaintext)
    with front.speak(b"") as client:
        said = client.receive(9) if isinstance(client, TlsClient) else read_exactly(client.sock, 9)
        assert said == b"220 ready"
        client.echo(b"and now the client")


# ---- the first dial fails ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, HELD, 100_000])
@pytest.mark.parametrize("fault", ["refuses", "is silent"])
def test_the_next_upstream_gets_all_of_it(
    balance: MakeBalancer, keep: Keep, plaintext: bool, size: int, fault: str
) -> None:
    data = pattern(size)
    dead, alive = keep(Refuser() if fault == "refuses" else Blackhole()), keep(Upstream(sink))
    front = listener(balance, dead, alive, plaintext=plaintext, connect_timeout=0.2)
    for _ in range(2):  # one of the two begins with the dead one
        with front.speak(data, ends=True) as client:
            assert client.receive_to_end() == (b"", front.clean)
        front.lb.wait_quiet()
    records = front.lb.records.wait(2, event="conn.close")
    assert sorted(record.attempts for record in records) == [1, 2]
    assert [record.bytes_in for record in records] == [size, size]
    assert [bytes(session.received) for session in alive.sessions] == [data, data]
    assert [session.ended for session in alive.sessions] == [End.FIN, End.FIN]


@pytest.mark.parametrize("size", [1000, HELD, 100_000])
def test_what_is_said_while_a_dial_fails_goes_to_the_next(
    balance: MakeBalancer, keep: Keep, pki: Pki, failing: Upstream, plaintext: bool, size: int
) -> None:
    """The end, too, is there before there is anybody to pass it on to."""
    data = pattern(size)
    alive = keep(Upstream(sink))
    front = listener(balance, server(failing, pki), alive, plaintext=plaintext, connect_timeout=30.0)
    front.lb.app.upstreams[1].drain()
    with front.speak(data[: size // 2]) as client:
        front.wait_held(min(size // 2, HELD))
        front.lb.app.upstreams[1].resume()
        front.say(client, data[size // 2 :])
        front.end(client)
        front.wait_held(min(size, HELD))
        failing.session().released.set()
        assert client.receive_to_end() == (b"", front.clean)
    assert alive.session().wait_end() is End.FIN
    assert bytes(alive.session().received) == data
    assert (failing.accepted, alive.accepted) == (1, 1)
    record = front.lb.record(event="conn.close")
    assert (record.attempts, record.bytes_in, record.upstream) == (2, size, alive.address)


# ---- nobody is reached ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, HELD, HELD + 1, 100_000])
def test_the_client_is_told_when_all_dials_fail(
    balance: MakeBalancer, keep: Keep, plaintext: bool, size: int
) -> None:
    """In good order: what it said and nobody took must not turn its end into a reset."""
    front = listener(balance, keep(Refuser()), keep(Refuser()), plaintext=plaintext)
    with front.speak(pattern(size)) as client:
        assert client.receive_to_end() == (b"", front.clean)
    record = front.lb.record(event="conn.deny", stage="dial")
    assert (record.reason, record.attempts) == ("connect_failed", 2)
    assert [one.in_flight for one in front.lb.app.upstreams] == [0, 0]


@pytest.mark.memory
def test_what_was_held_in_vain_is_given_back(balance: MakeBalancer, keep: Keep, plaintext: bool) -> None:
    front = listener(balance, keep(Refuser()), plaintext=plaintext)
    data = bytes(HELD)

    def visit(count: int) -> None:
        for _ in range(count):
            with front.speak(data) as client:
                assert client.receive_to_end() == (b"", front.clean)

    visit(50)
    before = anonymous_bytes()
    visit(300)
    assert anonymous_bytes() - before < 300 * HELD // 2


@pytest.mark.parametrize("ends", [True, False], ids=["after its end", "without"])
@pytest.mark.parametrize("size", [1000, 100_000])
def test_who_resets_meanwhile_ends_the_dial(
    balance: MakeBalancer, pki: Pki, slow: Upstream, plaintext: bool, size: int, ends: bool
) -> None:
    """Also when nothing is read from it any more, because as much as may be is held or it has ended."""
    front = listener(balance, server(slow, pki), plaintext=plaintext, connect_timeout=30.0)
    with front.speak(pattern(size), ends=ends) as client:
        front.wait_held(min(size, HELD))
        slow.session()
        watch = Stopwatch()
        client.reset()
        record = front.lb.record(reason="client_gone")
        assert watch.seconds < 5
    assert (record.stage, record.attempts) == ("dial", 1)
    slow.session().released.set()
    front.lb.wait_quiet()
    assert bytes(slow.session().received) == b""


def test_who_vanished_before_the_dial_is_not_dialled_for(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """Its FIN comes with the end of its handshake, and no close_notify before it."""
    front = listener(balance, upstream, plaintext=False)
    client = TlsClient(front.lb.port, client_context(pki, pki.alice))
    with client:
        client.sock.sendall(client.last_flight(), socket.MSG_MORE)
        client.send_fin()
        record = front.lb.record(reason="client_gone")
    assert (record.stage, record.attempts, record.upstream) == ("dial", 0, None)
    front.lb.wait_quiet()
    assert upstream.accepted == 0


def test_who_reset_before_the_dial_is_not_dialled_for(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream, plaintext=True)
    with socket.create_server(("127.0.0.1", 0)) as door:
        client = socket.create_connection(door.getsockname())
        accepted, _ = door.accept()
    reset(client)
    lb.app.submit_connection(accepted)
    record = lb.record(reason="client_gone")
    assert (record.stage, record.attempts, record.upstream) == ("dial", 0, None)
    lb.wait_quiet()
    assert upstream.accepted == 0
