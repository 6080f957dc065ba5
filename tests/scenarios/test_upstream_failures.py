"""Upstreams that do not answer, that are all gone, that come and go."""

from __future__ import annotations

import errno
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import Client, PlainClient, TlsClient, connect
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End
from kit.tcp import State, sockets
from kit.tls_upstream import tls_upstream
from kit.upstreams import Blackhole, Flapper, Refuser, Upstream, hold
from kit.waiting import wait_until

from lbcore import UpstreamServer, UpstreamTLS

PLAIN_OR_TLS = pytest.mark.parametrize("plaintext", [True, False], ids=["plaintext", "tls"])


def opened(lb: Balancer, plaintext: bool) -> Client:
    return PlainClient(lb.port) if plaintext else connect(lb.pki, lb.port)


def dialling(upstream: Blackhole) -> int:
    """Dials to it that have no answer yet, those included that fill its queue."""
    return len(sockets(remote=upstream.port, states=[State.SYN_SENT]))


# ---- no answer -----------------------------------------------------------------------------------


@PLAIN_OR_TLS
def test_who_leaves_while_one_is_dialled_takes_the_dial_along(
    balance: MakeBalancer, keep: Keep, plaintext: bool
) -> None:
    """The others are served, at once or when the time for that dial is over."""
    hole, good = keep(Blackhole()), [keep(Upstream()), keep(Upstream())]
    fillers = dialling(hole)
    lb = balance(hole, *good, plaintext=plaintext, app={"connect_timeout": 4, "passive_failures": 0})
    clients = [keep(opened(lb, plaintext)) for _ in range(30)]
    wait_until(lambda: sorted(lb.stages()) == ["dial"] * 10 + ["forward"] * 20, "a third dials it")
    assert dialling(hole) == fillers + 10
    stuck = {row["source"] for row in lb.engine.connections() if row["stage"] == "dial"}
    for client in clients:
        if client.source not in stuck:
            client.echo(b"the others do not wait")
    leaving = [client for client in clients if client.source in stuck][:6]
    for client in leaving:
        clients.remove(client)
        client.reset()
    wait_until(lambda: dialling(hole) == fillers + 4, "their dials are not left to themselves", timeout=0.5)
    gone = lb.records.wait(6, reason="client_gone")
    assert {(record.stage, record.upstream) for record in gone} == {("dial", hole.address)}
    assert lb.app.upstreams[0].in_flight == 4
    for client in clients:
        client.echo(b"and who stayed is served by another one")
        client.close()
    served = lb.records.wait(24, reason="client_closed")
    assert sorted(record.attempts for record in served) == [1] * 20 + [2] * 4
    assert {record.upstream for record in served} == {upstream.address for upstream in good}
    assert dialling(hole) == fillers
    assert lb.app.upstreams[0].errors == 4  # who left is not its fault


@pytest.mark.parametrize("how", ["fin", "close_notify and fin", "reset"])
def test_ways_to_leave_while_one_is_dialled(balance: MakeBalancer, keep: Keep, pki: Pki, how: str) -> None:
    """A stream that was cut is over; who has only said its last byte still waits for an answer."""
    hole = keep(Blackhole())
    fillers = dialling(hole)
    lb = balance(hole, app={"connect_timeout": 1.5})
    client: TlsClient = keep(connect(pki, lb.port))
    client.send(b"a question")
    wait_until(lambda: dialling(hole) == fillers + 1, "it is dialled")
    if how == "reset":
        client.reset()
    else:
        if how != "fin":
            client.send_close_notify()
        client.send_fin()
    if how == "close_notify and fin":
        assert client.receive_to_end()[0] == b""
        assert lb.record().reason == "connect_failed"
    else:
        wait_until(lambda: dialling(hole) == fillers, "the dial is cancelled", timeout=0.5)
        record = lb.record()
        assert (record.reason, record.stage) == ("client_gone", "dial")
    assert dialling(hole) == fillers


@PLAIN_OR_TLS
def test_an_upstream_that_does_not_shake_hands(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    """It accepts and says nothing: who leaves takes the connection along, who stays goes elsewhere."""
    silent, good = keep(Upstream(hold)), keep(tls_upstream(pki))
    tls = UpstreamTLS(ca=pki.ca.cert)
    servers = [UpstreamServer(upstream.address, tls=tls) for upstream in (silent, good)]
    lb = balance(*servers, plaintext=plaintext, app={"connect_timeout": 1.5, "passive_failures": 0})
    clients = [keep(opened(lb, plaintext)) for _ in range(12)]
    wait_until(lambda: sorted(lb.stages()) == ["dial"] * 6 + ["forward"] * 6, "half of them wait for it")
    stuck = {row["source"] for row in lb.engine.connections() if row["stage"] == "dial"}
    leaving = [client for client in clients if client.source in stuck][:4]
    for client in leaving:
        clients.remove(client)
        client.reset()
    wait_until(lambda: len(sockets(remote=silent.port)) == 2, "theirs are closed", timeout=0.5)
    for client in clients:
        client.echo(b"served")
        client.close()
    assert {record.stage for record in lb.records.wait(4, reason="client_gone")} == {"dial"}
    served = lb.records.wait(8, reason="client_closed")
    assert sorted(record.attempts for record in served) == [1] * 6 + [2] * 2
    assert {record.upstream for record in served} == {good.address}
    assert (servers[0].errors, sockets(remote=silent.port)) == (2, [])


@PLAIN_OR_TLS
def test_the_time_for_a_dial_is_kept(balance: MakeBalancer, keep: Keep, plaintext: bool) -> None:
    """For many at once, and with two upstreams that do not answer, for each of them."""
    holes = [keep(Blackhole()), keep(Blackhole())]
    before = [dialling(hole) for hole in holes]
    app = {"connect_timeout": 0.5, "passive_failures": 0}
    lb = balance(*holes, plaintext=plaintext, app=app)
    clients = [keep(opened(lb, plaintext)) for _ in range(20)]
    for client in clients:
        assert client.receive_to_end() == (b"", End.FIN if plaintext else End.CLOSE_NOTIFY)
    records = lb.records.wait(20, stage="dial", reason="connect_failed", errno=errno.ETIMEDOUT, attempts=2)
    assert len(lb.records.all()) == len(records) == 20
    for record in records:
        assert 1000 <= record.duration_ms - (record.handshake_ms or 0) < 1300
    assert [dialling(hole) for hole in holes] == before


# ---- nobody there --------------------------------------------------------------------------------


@PLAIN_OR_TLS
@pytest.mark.parametrize("max_ejected", [0.5, 1.0])
def test_all_gone_then_back(balance: MakeBalancer, keep: Keep, plaintext: bool, max_ejected: float) -> None:
    """Refused at once and for a reason; served again when the longest quarantine is over, or before."""
    gone = [keep(Refuser()) for _ in range(2)]
    app = {"passive_failures": 2, "passive_eject": 0.6, "max_ejected": max_ejected}
    lb = balance(*gone, plaintext=plaintext, app=app)
    servers = lb.app.upstreams
    bad = End.FIN if plaintext else End.CLOSE_NOTIFY
    out = 1 if max_ejected < 1 else 2
    watch = Stopwatch()
    refused = 0

    def is_served() -> bool:
        with opened(lb, plaintext) as client:
            return client.is_served()

    while sum(server.quarantines for server in servers) < out:
        with opened(lb, plaintext) as client:
            assert client.receive_to_end() == (b"", bad)
        refused += 1
    assert watch.seconds < 1.0
    with opened(lb, plaintext) as client:
        assert client.receive_to_end() == (b"", bad)
    records = lb.records.wait(refused + 1)
    reasons = Counter(record.reason for record in records)
    # With one of them still there, that one is tried by everybody.
    last = "no_upstream" if out == 2 else "connect_failed"
    assert reasons == Counter(["connect_failed"] * refused + [last])
    assert max(record.duration_ms - (record.handshake_ms or 0) for record in records) < 1000
    for refuser in gone:
        keep(refuser.revive())
    watch = Stopwatch()
    wait_until(is_served, "served again")
    longest = max(2 ** (server.quarantines - 1) for server in servers)
    assert watch.seconds < longest * 0.6 * 1.25 + 0.5
    wait_until(lambda: is_served() and all(server.state == "up" for server in servers), "all are back")


def test_checks_bring_them_back_at_once(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    gone = [keep(Refuser()) for _ in range(3)]
    lb = balance(*gone, app={"passive_failures": 1, "passive_eject": 600.0})
    servers = lb.app.upstreams
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    assert sum(server.ejected for server in servers) == 1
    for server in servers:
        server.mark_down()
    dialled = sum(server.errors for server in servers)
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record(reason="no_upstream")
    assert (record.stage, record.attempts) == ("pick", 0)
    assert sum(server.errors for server in servers) == dialled
    for refuser, server in zip(gone, servers, strict=True):
        keep(refuser.revive())
        server.mark_up()
    clients = [keep(connect(pki, lb.port)) for _ in range(6)]
    for client in clients:
        client.echo(b"the first one is served already")
    assert [(server.state, server.in_flight) for server in servers] == [("up", 2)] * 3
    for client in clients:
        client.close()


# ---- flapping ------------------------------------------------------------------------------------


@pytest.mark.slow
@PLAIN_OR_TLS
@pytest.mark.parametrize("passive_failures", [3, 0], ids=["quarantine", "no quarantine"])
def test_one_that_comes_and_goes_harms_only_who_it_has(
    balance: MakeBalancer, keep: Keep, plaintext: bool, passive_failures: int
) -> None:
    """Ten times a second, under short connections; then it stays, and is given no more than its share."""
    flapper = keep(Flapper(0.05))
    good = [keep(Upstream()), keep(Upstream())]
    app = {"passive_failures": passive_failures, "passive_eject": 0.2, "slow_start": 1.0}
    lb = balance(flapper, *good, plaintext=plaintext, app=app)
    server = lb.app.upstreams[0]
    data = bytes(range(256))
    stop = threading.Event()
    watch = Stopwatch()

    def visit(_: int) -> tuple[int, int]:
        """How many were served, and how many got an end instead, without a byte that is not theirs."""
        served = cut = 0
        while not stop.is_set():
            try:
                with opened(lb, plaintext) as client:
                    client.echo(data)
                served += 1
            except (AssertionError, ConnectionResetError, BrokenPipeError):
                cut += 1  # the upstream's reset may be here before connect(2) has returned
        return served, cut

    with ThreadPoolExecutor(4) as pool:
        visits = [pool.submit(visit, number) for number in range(4)]
        wait_until(lambda: flapper.times >= 30, "it has come and gone for three seconds")
        flapper.stay()
        stop.set()
        served, cut = (sum(counts) for counts in zip(*(visit.result(10) for visit in visits), strict=True))
    records = lb.records.wait(served + cut)
    unserved = [record for record in records if record.bytes_out != len(data)]
    assert len(records) == served + cut
    assert len(unserved) == cut
    assert {record.upstream for record in unserved} <= {flapper.address}
    assert {record.reason for record in unserved} <= {"upstream_closed", "upstream_reset"}
    assert served > 20 * cut
    # One that follows another is twice as long, or comes after as long a time without: 0.4 s for each.
    assert server.quarantines <= watch.seconds / 0.4 + 1.5
    assert (server.quarantines > 0) is (passive_failures > 0)
    wait_until(lambda: not server.ejected, "its time is over")
    held: list[Client] = []
    for _ in range(60):
        held.append(keep(opened(lb, plaintext)))
        held[-1].echo(b"x")
        counts = [one.in_flight for one in lb.app.upstreams]
        assert counts[0] <= min(counts[1:]) + 1, "it came back to no more than its share"
    assert server.state == "up"
    assert server.in_flight > 0
    for client in held:
        client.close()
    lb.wait_quiet()

    def goes_to_it() -> bool:
        before = server.picked
        for _ in range(3):
            with opened(lb, plaintext) as client:
                client.echo(b"x")
            lb.wait_quiet()
        return server.picked == before + 1

    wait_until(goes_to_it, "after the slow start it has its share again")
    assert server.state == "up"
