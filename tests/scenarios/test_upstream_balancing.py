"""Who gets the next connection, seen by the kernel as well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import pytest
from kit.balancer import Balancer
from kit.clients import Client, PlainClient, connect
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End
from kit.tcp import State, sockets
from kit.tls_upstream import tls_upstream
from kit.upstreams import Refuser, Upstream
from kit.waiting import wait_until

from lbcore import UpstreamServer, UpstreamTLS

KINDS = ["plaintext", "tls clients", "tls upstreams"]


@dataclass
class Setup:
    """A balancer, its upstreams, and the clients that are held open.

    Attributes:
        lb: the balancer.
        upstreams: in the order of the application's.
        secure: the clients speak TLS.
        clients: those that are open.
    """

    lb: Balancer
    upstreams: list[Upstream]
    secure: bool
    clients: list[Client] = field(default_factory=list)

    def open(self) -> Client:
        """One more client, served."""
        client: Client = connect(self.lb.pki, self.lb.port) if self.secure else PlainClient(self.lb.port)
        self.clients.append(client)
        client.echo(b"x")
        return client

    def hold(self, count: int) -> None:
        for _ in range(count):
            self.open()

    def end(self, clients: list[Client]) -> None:
        for client in clients:
            client.close()
            self.clients.remove(client)

    def of(self, number: int) -> list[Client]:
        """Whose connections an upstream has."""
        address = self.upstreams[number].address
        theirs = {row["source"] for row in self.lb.engine.connections() if row["upstream"] == address}
        return [client for client in self.clients if client.source in theirs]

    def counts(self) -> list[int]:
        """What the balancer counts, when the kernel has the same."""
        gauges = [server.in_flight for server in self.lb.app.upstreams]
        assert [len(sockets(remote=upstream.port)) for upstream in self.upstreams] == gauges
        return gauges


Start = Callable[..., Setup]


@pytest.fixture
def start(balance: MakeBalancer, keep: Keep, pki: Pki) -> Iterator[Start]:
    """Makes the balancer of a kind over upstreams with these weights or caps."""
    made: list[Setup] = []

    def begin(kind: str, *options: dict[str, int]) -> Setup:
        secure = kind == "tls upstreams"
        upstreams: list[Upstream] = [keep(tls_upstream(pki) if secure else Upstream()) for _ in options]
        tls = UpstreamTLS(ca=pki.ca.cert) if secure else None
        servers = [
            UpstreamServer(upstream.address, tls=tls, **values)
            for upstream, values in zip(upstreams, options, strict=True)
        ]
        setup = Setup(balance(*servers, plaintext=kind == "plaintext"), upstreams, kind != "plaintext")
        made.append(setup)
        return setup

    yield begin
    for setup in made:
        setup.end(list(setup.clients))


@pytest.mark.parametrize("kind", KINDS)
def test_the_side_that_lost_its_connections_gets_them_back(start: Start, kind: str) -> None:
    setup = start(kind, {}, {})
    for count in range(1, 11):
        setup.open()
        assert sorted(setup.counts()) == [count // 2, (count + 1) // 2]
    setup.end(setup.of(0))
    wait_until(lambda: setup.lb.app.upstreams[0].in_flight == 0, "its connections have ended")
    assert setup.counts() == [0, 5]
    for count in range(1, 6):
        setup.open()
        assert setup.counts() == [count, 5]
    for count in range(1, 9):
        setup.open()
        assert sorted(setup.counts()) == [5 + count // 2, 5 + (count + 1) // 2]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_shares_of_the_open_connections(start: Start, kind: str) -> None:
    """And stay so while connections end and others come."""
    setup = start(kind, {"weight": 3}, {"weight": 1})
    setup.hold(40)
    assert setup.counts() == [30, 10]
    setup.end(setup.of(0)[:15])
    wait_until(lambda: setup.lb.app.upstreams[0].in_flight == 15, "half of them have ended")
    setup.hold(15)
    assert setup.counts() == [30, 10]


@pytest.mark.parametrize("kind", KINDS)
def test_a_cap_holds_while_many_come_and_go(start: Start, kind: str) -> None:
    """Who finds all of them full is turned away cleanly, and nobody else is."""
    caps = [3, 5]
    setup = start(kind, *({"max_connections": cap} for cap in caps))
    lb, servers = setup.lb, setup.lb.app.upstreams
    stop = threading.Event()
    looked_enough = threading.Event()
    counted, there = [0, 0], [0, 0]

    def look() -> None:
        looks = 0
        while not stop.is_set():
            looks += 1
            if looks > 40 and all(counted) and all(there):
                looked_enough.set()
            for number, upstream in enumerate(setup.upstreams):
                counted[number] = max(counted[number], servers[number].in_flight)
                there[number] = max(there[number], len(at_one_moment(upstream.port)))

    def visit(_: int) -> tuple[int, int]:
        """How many came and were served. Each connection stays until the next one knows."""
        came = served = 0
        deadline = time.monotonic() + 10
        with ExitStack() as before:
            while came < 12 or (not looked_enough.is_set() and time.monotonic() < deadline):
                came += 1
                client = connect(lb.pki, lb.port) if setup.secure else PlainClient(lb.port)
                with ExitStack() as stack:
                    stack.enter_context(client)
                    is_served = client.is_served()
                    before.close()
                    if is_served:
                        served += 1
                        before.enter_context(stack.pop_all())
        return came, served

    with looking(look, stop), ThreadPoolExecutor(16) as pool:
        came, served = (sum(counts) for counts in zip(*pool.map(visit, range(16)), strict=True))
    for seen in (counted, there):
        assert all(0 < most <= cap for most, cap in zip(seen, caps, strict=True)), seen
    records = lb.records.wait(came)
    assert {record.reason for record in records} == {"client_closed", "no_upstream"}
    assert sum(record.reason == "client_closed" for record in records) == served
    assert served > sum(caps)


def at_one_moment(port: int) -> set[int]:
    """Connections to that port that were there together, by their own ports. The kernel tells them one by
    one, and meanwhile some end and others begin; those it tells twice were there between the two times."""
    first, second = (
        {end.local for end in sockets(remote=port, states=(State.ESTABLISHED, State.SYN_SENT))}
        for _ in range(2)
    )
    return first & second


@contextmanager
def looking(look: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    """Runs `look` on a thread of its own until the block is over."""
    with ThreadPoolExecutor(1) as observer:
        looks = observer.submit(look)
        try:
            yield
        finally:
            stop.set()
        looks.result(timeout=10)


@pytest.mark.parametrize("plaintext", [True, False], ids=["plaintext", "tls"])
@pytest.mark.parametrize("passive_failures", [0, 5])
def test_two_good_ones_share_evenly_whatever_a_third_refuses(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool, passive_failures: int
) -> None:
    """At no moment do they differ by more than one."""
    total, threads = 300, 6
    upstreams = [keep(Refuser()), keep(Upstream()), keep(Upstream())]
    app = {"passive_failures": passive_failures, "passive_eject": 60.0}
    lb = balance(*upstreams, plaintext=plaintext, app=app)
    refusing, one, two = lb.app.upstreams
    stop = threading.Event()
    apart = []

    def look() -> None:
        while not stop.is_set():
            first = one.in_flight
            other = two.in_flight
            later = one.in_flight
            if not first - 1 <= other <= later + 1:  # counts only grow here
                apart.append((first, other, later))

    def open_some(_: int) -> list[Client]:
        clients: list[Client] = []
        for _ in range(total // threads):
            clients.append(keep(PlainClient(lb.port) if plaintext else connect(pki, lb.port)))
            clients[-1].echo(b"served")
        return clients

    with looking(look, stop), ThreadPoolExecutor(threads) as pool:
        opened = [client for clients in pool.map(open_some, range(threads)) for client in clients]
    assert apart == []
    assert [refusing.in_flight, one.in_flight, two.in_flight] == [0, total // 2, total // 2]
    assert [len(sockets(remote=upstream.port)) for upstream in upstreams] == [0, total // 2, total // 2]
    assert refusing.quarantines == (1 if passive_failures else 0)
    assert refusing.errors >= (passive_failures or total // 4)
    for client in opened:
        client.echo(b"still")
        client.close()
    records = lb.records.wait(total)
    assert {(record.reason, record.bytes_out) for record in records} == {("client_closed", 11)}
    assert max(record.attempts for record in records) == 2


def test_a_turned_away_client_sees_an_end_and_not_silence(start: Start) -> None:
    setup = start("tls clients", {"max_connections": 1})
    setup.open()
    with connect(setup.lb.pki, setup.lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    assert setup.lb.record().reason == "no_upstream"
