"""Stage 6, pick: the least loaded upstream, reserved before it is dialled."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.balancer import Balancer
from kit.clients import connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_to_end
from kit.upstreams import Upstream
from kit.waiting import wait_until

from lbcore import UpstreamServer


def in_flight(lb: Balancer) -> list[int]:
    return [server.in_flight for server in lb.app.upstreams]


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_a_hundred_at_once_spread_evenly_though_accept_is_slow(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    """Counted before the dial: pending dials weigh like open connections."""
    upstreams = [keep(Upstream(accepting=False)) for _ in range(4)]
    lb = balance(*upstreams, plaintext=plaintext)
    barrier = threading.Barrier(100)

    def one(_: int) -> Any:
        barrier.wait(20)
        return plain(lb.port) if plaintext else connect(pki, lb.port)

    with ThreadPoolExecutor(100) as pool:
        for client in pool.map(one, range(100)):
            keep(client)
    wait_until(lambda: sum(in_flight(lb)) == 100, "all are picked")
    assert all(24 <= count <= 26 for count in in_flight(lb))
    for upstream in upstreams:
        upstream.start_accepting()
    wait_until(lambda: sum(upstream.accepted for upstream in upstreams) == 100, "all are accepted")
    assert all(24 <= upstream.accepted <= 26 for upstream in upstreams)


def test_ties_do_not_always_go_to_the_first(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstreams = [keep(Upstream()) for _ in range(4)]
    lb = balance(*upstreams)
    for _ in range(40):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
    assert all(5 <= upstream.accepted <= 15 for upstream in upstreams)


def test_the_least_loaded_one_is_next(balance: MakeBalancer, keep: Keep) -> None:
    upstreams = [keep(Upstream()) for _ in range(3)]
    lb = balance(*upstreams, plaintext=True)
    clients = [plain(lb.port) for _ in range(9)]
    wait_until(lambda: in_flight(lb) == [3, 3, 3], "three each")
    # Everybody leaves the second one; it then gets the next three.
    leaving = {
        connection["source"]
        for connection in lb.engine.connections()
        if connection["upstream"] == upstreams[1].address
    }
    for client in clients:
        host, port = client.getsockname()
        if f"{host}:{port}" in leaving:
            client.close()
    wait_until(lambda: in_flight(lb) == [3, 0, 3], "the second one is idle")
    clients += [plain(lb.port) for _ in range(3)]
    wait_until(lambda: in_flight(lb) == [3, 3, 3], "the idle one is used")
    for client in clients:
        client.close()


def test_weights_are_shares_of_the_open_connections(balance: MakeBalancer, keep: Keep) -> None:
    upstreams = [keep(Upstream()) for _ in range(3)]
    servers = [
        UpstreamServer(upstream.address, weight)
        for upstream, weight in zip(upstreams, (4, 2, 2), strict=True)
    ]
    lb = balance(*servers, plaintext=True)
    for _ in range(40):
        keep(plain(lb.port))
    lb.wait_open(40)
    heavy, *light = in_flight(lb)
    assert 19 <= heavy <= 21
    assert all(9 <= count <= 11 for count in light)


def test_an_upstream_never_gets_more_than_its_maximum(balance: MakeBalancer, keep: Keep) -> None:
    small, large = keep(Upstream()), keep(Upstream())
    servers = [UpstreamServer(small.address, max_connections=3), UpstreamServer(large.address)]
    lb = balance(*servers, plaintext=True)
    barrier = threading.Barrier(40)

    def one(_: int) -> Any:
        barrier.wait(20)
        return plain(lb.port)

    with ThreadPoolExecutor(40) as pool:
        for client in pool.map(one, range(40)):
            keep(client)
    lb.wait_open(40)
    assert in_flight(lb) == [3, 37]


def test_when_all_are_full_the_client_is_told_to_come_back(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    upstream = keep(Upstream())
    lb = balance(UpstreamServer(upstream.address, max_connections=1))
    with connect(pki, lb.port) as first:
        first.echo(b"x")
        with connect(pki, lb.port) as second:
            assert second.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record(event="conn.deny")
    assert (record.stage, record.reason, record.attempts, record.upstream) == ("pick", "no_upstream", 0, None)
    assert upstream.accepted == 1
    lb.wait_quiet()
    with connect(pki, lb.port) as client:
        client.echo(b"room again")


def test_a_plain_client_sees_a_clean_end_too(balance: MakeBalancer, keep: Keep) -> None:
    upstream = keep(Upstream())
    lb = balance(UpstreamServer(upstream.address, max_connections=1), plaintext=True)
    with plain(lb.port) as first:
        first.sendall(b"x")
        assert first.recv(1) == b"x"
        with plain(lb.port) as second:
            assert read_to_end(second) == (b"", End.FIN)


def test_stats_tell_what_was_picked(balance: MakeBalancer, keep: Keep) -> None:
    upstreams = [keep(Upstream()) for _ in range(2)]
    lb = balance(*upstreams, plaintext=True)
    with plain(lb.port), plain(lb.port):
        lb.wait_open(2)
        rows = lb.engine.stats()["applications"]["web"]["upstreams"]
        assert [(row["address"], row["in_flight"], row["picked"]) for row in rows] == [
            (upstream.address, 1, 1) for upstream in upstreams
        ]
