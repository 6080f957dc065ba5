"""Stage 7, dial: another upstream when one fails, within bounds, and never one that failed already."""

from __future__ import annotations

import errno
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kit.balancer import Stopwatch
from kit.clients import connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_exactly
from kit.tcp import State, sockets
from kit.upstreams import Blackhole, Refuser, Session, Upstream
from kit.waiting import wait_until

from lbcore import UpstreamServer


def test_a_dead_upstream_is_tried_elsewhere(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    dead, alive = keep(Refuser()), keep(Upstream())
    lb = balance(dead, alive, app={"passive_failures": 0})
    for _ in range(20):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
    records = lb.records.wait(20, event="conn.close")
    assert {record.upstream for record in records} == {alive.address}
    assert max(record.attempts for record in records) == 2
    assert alive.accepted == 20


def test_a_dead_upstream_is_not_everybodys_first(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """One connection after the other: the turn moves on with each of them, not with each of its dials."""
    lb = balance(keep(Refuser()), keep(Upstream()), app={"passive_failures": 0})
    for _ in range(20):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
    attempts = [record.attempts for record in lb.records.wait(20, event="conn.close")]
    assert attempts.count(2) == attempts.count(1) == 10


def test_two_good_ones_share_what_the_dead_one_refuses(balance: MakeBalancer, keep: Keep) -> None:
    dead, first, second = keep(Refuser()), keep(Upstream()), keep(Upstream())
    lb = balance(dead, first, second, plaintext=True, app={"passive_failures": 0})
    for _ in range(100):
        keep(plain(lb.port))
    lb.wait_open(100)
    refused, one, two = (server.in_flight for server in lb.app.upstreams)
    assert refused == 0
    assert abs(one - two) <= 1


def test_attempts_are_bounded(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    dead = [keep(Refuser()) for _ in range(4)]
    lb = balance(*dead, app={"connect_attempts": 2, "passive_failures": 0})
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record()
    assert (record.event, record.stage, record.reason) == ("conn.deny", "dial", "connect_failed")
    assert (record.attempts, record.errno) == (2, errno.ECONNREFUSED)
    assert record.upstream in {refuser.address for refuser in dead}
    assert sum(server.errors for server in lb.app.upstreams) == 2


def test_none_is_tried_twice_by_one_connection(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    dead = [keep(Refuser()) for _ in range(3)]
    lb = balance(*dead, app={"connect_attempts": 8, "passive_failures": 0})
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record()
    assert (record.stage, record.reason, record.attempts) == ("dial", "connect_failed", 3)
    assert record.upstream in {refuser.address for refuser in dead}
    assert [server.errors for server in lb.app.upstreams] == [1, 1, 1]


def test_early_bytes_survive_a_failed_dial(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    dead, alive = keep(Blackhole()), keep(Upstream())
    lb = balance(dead, alive, app={"connect_timeout": 0.2, "passive_failures": 0})
    data = bytes(range(256)) * 40
    for _ in range(4):
        with connect(pki, lb.port) as client:
            client.echo(data)
    assert max(record.attempts for record in lb.records.wait(4, event="conn.close")) == 2


# ---- passive health ------------------------------------------------------------------------------


def test_an_upstream_that_keeps_failing_is_skipped(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    dead, alive = keep(Refuser()), keep(Upstream())
    lb = balance(dead, alive, app={"passive_failures": 3, "passive_eject": 60.0})
    server = lb.app.upstreams[0]
    for _ in range(20):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
    assert server.ejected
    assert server.errors == 3
    assert alive.accepted == 20


def test_it_comes_back_after_its_time(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    dead, alive = keep(Refuser()), keep(Upstream())
    lb = balance(dead, alive, app={"passive_failures": 1, "passive_eject": 0.3})
    server = lb.app.upstreams[0]

    def visit() -> int:
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
        return server.errors

    wait_until(lambda: visit() >= 1, "it fails once")
    assert server.ejected
    wait_until(lambda: visit() >= 2, "it is tried again")


def test_a_good_dial_forgives_earlier_failures(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Only failures in a row count."""
    upstream = keep(Refuser())
    other = keep(Upstream())
    lb = balance(upstream, other, app={"passive_failures": 3, "passive_eject": 60.0})
    server = lb.app.upstreams[0]

    def visit() -> None:
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()

    while server.errors < 2:
        visit()
    revived = upstream.revive()
    while revived.accepted < 1:
        visit()
    revived.close()
    while server.errors < 4:
        visit()
    assert not server.ejected


def test_a_lone_upstream_is_never_skipped(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Refuser()), app={"passive_failures": 1})
    for _ in range(5):
        with connect(pki, lb.port) as client:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
    assert lb.app.upstreams[0].errors == 5
    assert not lb.app.upstreams[0].ejected


def test_no_more_than_the_allowed_share_is_skipped(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    dead = [keep(Refuser()) for _ in range(4)]
    lb = balance(*dead, app={"passive_failures": 1, "max_ejected": 0.5, "connect_attempts": 4})
    for _ in range(5):
        with connect(pki, lb.port) as client:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
    assert sum(server.ejected for server in lb.app.upstreams) == 2


# ---- time ----------------------------------------------------------------------------------------


def test_a_dial_without_an_answer_times_out(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Blackhole()), app={"connect_timeout": 0.3})
    with connect(pki, lb.port) as client:
        watch = Stopwatch()
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
        assert 0.2 <= watch.seconds < 3
    record = lb.record()
    assert (record.event, record.reason, record.errno) == ("conn.deny", "connect_failed", errno.ETIMEDOUT)
    assert record.attempts == 1
    assert record.duration_ms >= 290
    assert record.connect_ms is None


def test_a_client_that_leaves_during_the_dial_cancels_it(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    hole = keep(Blackhole())
    lb = balance(hole, app={"connect_timeout": 30.0})

    def dialling() -> int:
        return len(sockets(remote=hole.port, states=[State.SYN_SENT]))

    fillers = dialling()
    with connect(pki, lb.port) as leaving, connect(pki, lb.port) as staying:
        lb.wait_open(2, "dial")
        assert dialling() == fillers + 2
        watch = Stopwatch()
        leaving.reset()
        wait_until(lambda: dialling() == fillers + 1, "its dial is not left to itself")
        assert watch.seconds < 0.5
        record = lb.record()
        assert (record.reason, record.stage) == ("client_gone", "dial")
        assert [server.in_flight for server in lb.app.upstreams] == [1]
        staying.reset()
    lb.records.wait(2, reason="client_gone")


def test_others_are_served_while_one_dials(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Blackhole()), app={"connect_timeout": 30.0}, engine={"workers": 1})
    lb.policy.allow(pki.alice, "web", "other")
    other = lb.add("other", keep(Upstream()))
    with connect(pki, lb.port) as stuck:
        lb.wait_open(1, "dial")

        def visit(number: int) -> None:
            with connect(pki, other.port) as client:
                client.echo(b"%d" % number)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(visit, range(20)))
        assert lb.stages().count("dial") == 1
        stuck.reset()


def test_all_down_then_up_again(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Refuser())
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
    keep(upstream.revive())
    with connect(pki, lb.port) as client:
        client.echo(b"back")


@pytest.mark.parametrize("count", [1, 3])
def test_a_dial_is_timed(balance: MakeBalancer, keep: Keep, pki: Pki, count: int) -> None:
    lb = balance(*(keep(Upstream()) for _ in range(count)))
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    record = lb.record()
    assert record.connect_ms is not None
    assert 0 < record.connect_ms < record.duration_ms


def test_ipv6_upstreams(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Upstream(host="::1")))
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    assert (lb.record().upstream or "").startswith("[::1]:")


# ---- how connect(2) ends ---------------------------------------------------------------------------


def test_an_answer_that_takes_its_time(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Its queue is full when it is dialled, and has room when the kernel asks again after a second."""
    hole = keep(Blackhole())
    lb = balance(hole, app={"connect_timeout": 30.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "dial")
        keep(hole.revive())
        client.echo(b"there it is")
    record = lb.record(event="conn.close")
    assert (record.attempts, record.errno, record.upstream) == (1, 0, hole.address)
    assert record.connect_ms is not None
    assert record.connect_ms > 100
    assert lb.app.upstreams[0].errors == 0


def test_a_refusal_that_takes_its_time(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """It goes away while it is dialled, which the kernel learns when it asks again."""
    hole, alive = keep(Blackhole()), keep(Upstream())
    lb = balance(hole, alive, app={"connect_timeout": 30.0, "passive_failures": 0})
    lb.app.upstreams[1].drain()
    with connect(pki, lb.port) as first, connect(pki, lb.port) as second:
        lb.wait_open(2, "dial")
        hole.refuse()
        assert first.receive_to_end() == second.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    for record in lb.records.wait(2, event="conn.deny"):
        assert (record.stage, record.reason) == ("dial", "connect_failed")
        assert (record.attempts, record.errno) == (1, errno.ECONNREFUSED)
    assert lb.app.upstreams[0].errors == 2


def test_a_refusal_that_takes_its_time_leaves_others_to_try(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    hole, alive = keep(Blackhole()), keep(Upstream())
    lb = balance(hole, alive, app={"connect_timeout": 30.0, "passive_failures": 0})
    lb.app.upstreams[1].drain()
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "dial")
        lb.app.upstreams[1].resume()
        hole.refuse()
        client.echo(b"somewhere else")
    record = lb.record(event="conn.close")
    assert (record.attempts, record.errno, record.upstream) == (2, 0, alive.address)


def test_an_address_that_cannot_be_dialled(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """connect(2) says so itself: this one is loopback's broadcast address. It counts as the upstream's
    failure, and another one is tried."""
    nowhere, alive = UpstreamServer("127.255.255.255:1"), keep(Upstream())
    lb = balance(nowhere, alive, app={"passive_failures": 0})
    for number in range(2):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
        assert nowhere.errors <= number + 1
    assert nowhere.errors == 1
    assert sorted(record.attempts for record in lb.records.wait(2, event="conn.close")) == [1, 2]
    lb.app.upstreams[1].drain()
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    assert lb.record(event="conn.deny").errno == errno.ENETUNREACH


# ---- what the client has said by then --------------------------------------------------------------


def test_an_answer_in_two_writes_waits_for_no_timer(balance: MakeBalancer, keep: Keep) -> None:
    """Under Nagle's algorithm (RFC 896) the second one waits until the first is acknowledged: at once, and
    not when the kernel's timer for late acknowledgements is up, 40 ms at the least."""

    def answer(session: Session) -> None:
        session.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        session.sock.recv(100)
        session.sock.send(b"head")
        session.sock.send(b"body")
        session.sock.recv(1)

    lb = balance(keep(Upstream(answer)), plaintext=True)
    times = []
    for _ in range(20):
        with plain(lb.port) as client:
            started = time.monotonic()
            client.sendall(b"GET")
            assert read_exactly(client, 8) == b"headbody"
            times.append(time.monotonic() - started)
    assert min(times) < 0.03
