"""Stage 2, handshake: whatever befalls a flight of it, in whatever pieces it comes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect, outcome
from kit.faults import NONE, Ending, Faults, FaultyProxy
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End
from kit.tcp import sockets
from kit.transfers import transfers
from kit.upstreams import Upstream
from kit.waiting import wait_until

TRANSFERS = 4
ROUNDS = 3
AT_ONCE = 64
RECORD_HEADER = 5
CHANGE_CIPHER_SPEC = 6  # bytes of it, in front of the client's last flight (RFC 8446, D.4)
IN_FINISHED = 16  # so far before the end of a flight is its last record
ONE = Faults(segment=1)


# ---- pieces --------------------------------------------------------------------------------------


def wakeups(lb: Balancer) -> int:
    return sum(worker["wakeups"] for worker in lb.engine.stats()["workers"])


def test_a_whole_connection_in_single_bytes(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, pki: Pki
) -> None:
    """Both ways, on both sides of the balancer, from the first byte of the handshake to the close_notify."""
    behind = keep(FaultyProxy(upstream.port, up=ONE, down=ONE))
    lb = balance(behind)
    before = keep(FaultyProxy(lb.port, up=ONE, down=ONE))
    woken = wakeups(lb)
    data = bytes(range(256))
    with connect(pki, before.port) as client:
        client.echo(data)
        client.send_close_notify()
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record()
    assert (record.reason, record.bytes_in, record.bytes_out) == ("client_closed", len(data), len(data))
    came = before.link().up.passed + behind.link().down.passed
    assert wakeups(lb) - woken > came / 10, "it was read in larger pieces"


def test_a_hello_cut_anywhere_is_served(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """At each of its bytes; the rest comes when the balancer has read the first part."""
    lb = balance(upstream)
    context = client_context(pki, pki.alice)
    with TlsClient(lb.port, context) as client:
        length = len(client.first_flight())

    def all_read(count: int) -> bool:
        ends = sockets(local=lb.port)
        return len(ends) >= count and not any(end.unread for end in ends)

    for start in range(1, length, AT_ONCE):
        cuts = range(start, min(start + AT_ONCE, length))
        clients = [TlsClient(lb.port, context) for _ in cuts]
        hellos = [client.first_flight() for client in clients]
        for client, hello, cut in zip(clients, hellos, cuts, strict=True):
            client.sock.sendall(hello[:cut])
        wait_until(lambda: all_read(len(cuts)), "the first parts are read")  # noqa: B023
        for client, hello, cut in zip(clients, hellos, cuts, strict=True):
            client.sock.sendall(hello[cut:])
            client.handshake()
            client.send(b"whole")
        for client in clients:
            assert client.receive(5) == b"whole"
            client.close()
    assert len(lb.records.wait(length - 1, reason="client_closed")) == length - 1


# ---- faults --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flights:
    """How many bytes each flight of a handshake has; signatures make a few more or less of it.

    Attributes:
        hello: the client's first.
        server: the server's.
        last: the client's certificate, signature and Finished.
    """

    hello: int
    server: int
    last: int


def rehearsed(lb: Balancer, pki: Pki) -> Flights:
    with (
        FaultyProxy(lb.port) as proxy,
        TlsClient(proxy.port, client_context(pki, pki.alice)) as client,
    ):
        hello = client.first_flight()
        client.sock.sendall(hello)
        client.handshake()
        record = client.seal(b"x")
        client.sock.sendall(record)
        assert client.receive(1) == b"x"
        up, down = proxy.link().up.passed, proxy.link().down.passed
    return Flights(len(hello), down - len(record), up - len(hello) - len(record))


@dataclass(frozen=True)
class Broken:
    """One way to break a handshake, and how the balancer calls it."""

    reason: str
    up: Faults = NONE
    down: Faults = NONE


def resets(flights: Flights) -> list[Broken]:
    """The client is gone within each flight, and between them."""
    both = flights.hello + flights.last
    up = [1, 5, flights.hello // 2, flights.hello, flights.hello + flights.last // 2, both - IN_FINISHED]
    down = [1, flights.server // 2, flights.server - IN_FINISHED]
    return [
        *(Broken("client_gone", up=Faults(end_after=after, ending=Ending.RESET)) for after in up),
        *(Broken("client_gone", down=Faults(end_after=after, ending=Ending.RESET)) for after in down),
    ]


def flips(flights: Flights) -> list[Broken]:
    """A byte is wrong in each flight: in a record's header, in what is plain, in what is sealed."""
    start, middle = flights.hello + CHANGE_CIPHER_SPEC, flights.hello + flights.last // 2
    end = flights.hello + flights.last - IN_FINISHED
    # The balancer cannot know that a random number is wrong. The client does, by what the server makes of it.
    hello = {0: "not_tls", 1: "not_tls", 3: "not_tls", 5: "not_tls", 20: "client_gone"}
    last = dict.fromkeys([start + RECORD_HEADER, middle, end], "handshake_failed")
    server = [0, 20, flights.server // 2, flights.server - IN_FINISHED]
    return [
        *(Broken(reason, up=Faults(flip=at)) for at, reason in {**hello, **last}.items()),
        *(Broken("client_gone", down=Faults(flip=at)) for at in server),
    ]


def break_beside_transfers(lb: Balancer, pki: Pki, upstream: Upstream, ways: list[Broken]) -> list[End]:
    """Breaks handshakes in all these ways while bytes flow; how they ended for their clients."""
    before = upstream.accepted
    context = client_context(pki, pki.alice)
    ends = []
    with transfers(pki, lb.port, TRANSFERS):
        for way in ways * ROUNDS:
            with FaultyProxy(lb.port, up=way.up, down=way.down) as proxy:
                ends.append(outcome(proxy.port, context))
    broken = len(ways) * ROUNDS
    lb.records.wait(1 + TRANSFERS + broken)  # with the rehearsal's
    assert len(lb.records.all(event="conn.close", reason="client_closed")) == 1 + TRANSFERS
    reasons = Counter(record.reason for record in lb.records.all(stage="handshake"))
    assert reasons == Counter(way.reason for way in ways * ROUNDS)
    assert upstream.accepted == before + TRANSFERS
    return ends


def test_a_reset_in_any_flight(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    ways = resets(rehearsed(lb, pki))
    assert set(break_beside_transfers(lb, pki, upstream, ways)) == {End.RESET}


def test_a_flipped_byte_in_any_flight(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    ways = flips(rehearsed(lb, pki))
    assert End.CLOSE_NOTIFY not in break_beside_transfers(lb, pki, upstream, ways)
