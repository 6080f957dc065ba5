"""Stage 8, forward: bytes per second, shared by all connections of a scope, each direction for itself."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_to_end
from kit.upstreams import Upstream, hold, sink, source
from kit.waiting import wait_until

from lbcore import LimitClass, RateLimitManager

MIB = 1 << 20
RATE = MIB  # bytes per second
SIZE = 2 * MIB


@pytest.fixture(params=["tls", "plaintext"])
def open_one(
    request: pytest.FixtureRequest, balance: MakeBalancer, pki: Pki
) -> Callable[..., tuple[Balancer, Callable[[], Any]]]:
    """A balancer with limits of one client, and a way to open its connections."""

    def make(upstream: Upstream, **limits: Any) -> tuple[Balancer, Callable[[], Any]]:
        if request.param == "plaintext":
            lb = balance(upstream, plaintext=True, source_limits=LimitClass(**limits))
            return lb, lambda: plain(lb.port)
        lb = balance(upstream)
        lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", **limits))
        return lb, lambda: connect(pki, lb.port)

    return make


def send_all(client: Any, data: bytes) -> None:
    client.send(data) if hasattr(client, "echo") else client.sendall(data)


def all_of(client: Any) -> bytes:
    return bytes(client.receive_to_end()[0] if hasattr(client, "echo") else read_to_end(client)[0])


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 4])
def test_in(
    open_one: Callable[..., Any], keep: Keep, connections: int
) -> None:
    upstream = keep(Upstream(sink))
    _, opener = open_one(upstream, bandwidth_in=RATE)
    data = bytes(SIZE // connections)
    watch = Stopwatch()

    def one(_: int) -> None:
        with opener() as client:
            send_all(client, data)
            wait_until(lambda: sum(len(s.received) for s in upstream.sessions) == SIZE, timeout=30)

    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(one, range(connections)))
    assert SIZE / RATE * 0.85 <= watch.seconds <= SIZE / RATE * 1.15  # an eighth of a second comes at once


@pytest.mark.slow
@pytest.mark.parametrize("connections", [1, 4])
def test_out_and_the_other_direction_is_free(
    open_one: Callable[..., Any], keep: Keep, connections: int
) -> None:
    upstream = keep(Upstream(source(bytes(SIZE // connections))))
    _, opener = open_one(upstream, bandwidth_out=RATE)
    watch = Stopwatch()

    def one(_: int) -> int:
        with opener() as client:
            return len(all_of(client))

    with ThreadPoolExecutor(connections) as pool:
        assert sum(pool.map(one, range(connections))) == SIZE
    assert SIZE / RATE * 0.85 <= watch.seconds <= SIZE / RATE * 1.15


def test_one_direction_does_not_slow_the_other(open_one: Callable[..., Any], keep: Keep) -> None:
    upstream = keep(Upstream(source(bytes(4 * MIB))))
    _, opener = open_one(upstream, bandwidth_in=1000)
    watch = Stopwatch()
    with opener() as client:
        send_all(client, bytes(500))
        assert len(all_of(client)) == 4 * MIB
    assert watch.seconds < 10


@pytest.mark.slow
def test_a_modest_connection_keeps_its_share_beside_greedy_ones(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    """A megabyte a second for everybody, four that take all they can get, and one that wants a tenth."""
    shared = RateLimitManager("app", bandwidth_in=RATE, scope="application")
    upstream = keep(Upstream(sink))
    lb = balance(upstream, app={"limits": shared})
    greedy = [keep(connect(pki, lb.port)) for _ in range(4)]
    stop = threading.Event()

    def take(client: Any) -> None:
        client.sock.settimeout(0.2)
        block = bytes(65536)
        while not stop.is_set():
            try:
                client.send(block)
            except (TimeoutError, OSError):
                return

    threads = [threading.Thread(target=take, args=(client,)) for client in greedy]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(len(s.received) > 0 for s in upstream.sessions) and upstream.accepted == 4)
        modest = keep(connect(pki, lb.port))
        sent = 0
        watch = Stopwatch()
        while watch.seconds < 2:
            modest.send(bytes(10_000))
            sent += 10_000
            time.sleep(0.1)  # this is its pace, not a wait for something
        session = upstream.session(4)
        wait_until(lambda: len(session.received) == sent)
        assert watch.seconds < 5
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("paused", ["in", "out"])
def test_a_paused_connection_notices_a_reset(
    open_one: Callable[..., Any], keep: Keep, paused: str
) -> None:
    upstream = keep(Upstream(sink) if paused == "in" else Upstream(source(bytes(100_000))))
    lb, opener = open_one(upstream, **{f"bandwidth_{paused}": 100})
    client = opener()
    send_all(client, bytes(20_000))
    lb.wait_open(1)
    watch = Stopwatch()
    (client if isinstance(client, socket.socket) else client.sock).setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
    )
    client.close()
    lb.wait_quiet()
    assert watch.seconds < 2


def test_a_reset_right_behind_a_close_notify_is_noticed(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Both are in the socket before the balancer looks; nothing is written that would fail."""
    for _ in range(30):
        lb = balance(keep(Upstream(hold)))
        lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", bandwidth_out=100))
        client = connect(pki, lb.port)
        lb.wait_open(1)
        client.send(bytes(40_000))
        client.send_close_notify()
        client.reset()
        lb.wait_quiet()
        lb.close()


def test_a_paused_connection_is_not_idle(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(sink))
    lb = balance(upstream, app={"idle_timeout": 0.3})
    lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", bandwidth_in=2000))
    with connect(pki, lb.port) as client:
        client.send(bytes(4000))
        wait_until(lambda: len(upstream.session().received) == 4000)
        assert client.receive_to_end()[1] is End.RESET  # idle afterwards
    assert lb.record().reason == "idle"


def test_stop_ends_a_paused_connection(open_one: Callable[..., Any], keep: Keep) -> None:
    upstream = keep(Upstream(sink))
    lb, opener = open_one(upstream, bandwidth_in=100)
    client = keep(opener())
    send_all(client, bytes(50_000))
    lb.wait_open(1)
    watch = Stopwatch()
    assert not lb.engine.stop(drain=0.2)
    assert watch.seconds < 2


def test_the_counters_of_a_scope_have_the_bytes(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Upstream()))
    manager = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", bandwidth_in=1e9))
    with connect(pki, lb.port) as client:
        client.echo(bytes(5000))
    wait_until(lambda: manager.open == 0)
    assert (manager.bytes_in, manager.bytes_out) == (5000, 5000)


def test_a_shadow_slows_nothing_down(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Upstream()))
    lb.policy.limit(
        pki.alice, "web", limits=RateLimitManager("alice", bandwidth_in=100, on_exceed="shadow")
    )
    watch = Stopwatch()
    with connect(pki, lb.port) as client:
        client.echo(bytes(50_000))
    assert watch.seconds < 5
