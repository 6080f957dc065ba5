"""Stage 5, limit: exact counts, whatever races there are, and everything given back."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect, plain
from kit.fixtures import Keep, MakeBalancer, Options
from kit.pki import Pki
from kit.sockets import End, read_to_end
from kit.upstreams import Blackhole, Refuser, Upstream, hold, resetter
from kit.waiting import wait_until

import lbcore
from lbcore import RateLimitManager

FOREVER = 1e-6  # opens per second: no token comes back within a test


def try_to_get_in(port: int, context: ssl.SSLContext) -> TlsClient | None:
    """An open connection that echoes, or None after a temporary refusal: close_notify, never a reset."""
    client = TlsClient(port, context)
    try:
        client.handshake()
        client.send(b"?")
        data, end = b"", None
        try:
            data = client.receive(1)
        except AssertionError:
            end = client.receive_to_end()[1]
        if data == b"?":
            return client
        assert end is End.CLOSE_NOTIFY
    except BaseException:
        client.close()
        raise
    client.close()
    return None


def get_in(port: int, context: ssl.SSLContext) -> TlsClient:
    """An open connection that echoes."""
    client = try_to_get_in(port, context)
    assert client is not None
    return client


def all_at_once(count: int, port: int, context: ssl.SSLContext) -> list[TlsClient]:
    """Those who got in, of `count` who tried at the same moment."""
    barrier = threading.Barrier(count)

    def one(_: int) -> TlsClient | None:
        barrier.wait(20)
        return try_to_get_in(port, context)

    with ThreadPoolExecutor(count) as pool:
        return [client for client in pool.map(one, range(count)) if client is not None]


# ---- how many at once ----------------------------------------------------------------------------


def test_two_hundred_against_fifty_admit_exactly_fifty(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=50))
    context = client_context(pki, pki.alice)
    for round_number in (1, 2):
        inside = all_at_once(200, lb.port, context)
        assert len(inside) == 50
        assert limits.open == 50
        assert upstream.accepted == 50 * round_number
        for client in inside:
            client.close()
        wait_until(lambda: limits.open == 0, "all slots are given back")
    refusals = lb.records.wait(300, event="conn.deny")
    assert len(refusals) == 300
    assert {(r.stage, r.reason, r.scope) for r in refusals} == {("limit", "concurrent", "client")}
    assert {r.client for r in refusals} == {"alice"}
    assert (limits.admitted, limits.refused) == (100, 300)


def test_limits_are_per_client(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=1))
    lb.policy.limit(pki.bob, "web", limits=RateLimitManager("bob", max_open=1))
    alice, bob = client_context(pki, pki.alice), client_context(pki, pki.bob)
    with get_in(lb.port, alice), get_in(lb.port, bob):
        assert try_to_get_in(lb.port, alice) is None
        assert try_to_get_in(lb.port, bob) is None


def test_a_freed_slot_can_be_used(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=1))
    context = client_context(pki, pki.alice)
    for _ in range(10):
        client = try_to_get_in(lb.port, context)
        assert client is not None
        assert try_to_get_in(lb.port, context) is None
        client.close()
        wait_until(lambda: limits.open == 0, "the slot is given back")


def test_one_manager_counts_over_listeners(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    lb.policy.limit(pki.alice, "web", "other", limits=RateLimitManager("alice", max_open=1))
    other = lb.add("other", upstream)
    context = client_context(pki, pki.alice)
    with get_in(lb.port, context):
        assert try_to_get_in(other.port, context) is None


def test_python_counts_in_the_same_manager(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=1))
    assert limits.connection_opened()
    assert try_to_get_in(lb.port, client_context(pki, pki.alice)) is None
    limits.connection_closed()
    with get_in(lb.port, client_context(pki, pki.alice)):
        assert not limits.connection_opened()


# ---- how many in a time --------------------------------------------------------------------------


def test_a_burst_and_no_more(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", rate=FOREVER, burst=5))
    inside = all_at_once(20, lb.port, client_context(pki, pki.alice))
    for client in inside:
        client.close()
    assert len(inside) == 5
    assert {(r.reason, r.scope) for r in lb.records.wait(15, event="conn.deny")} == {("rate", "client")}
    assert upstream.accepted == 5


def test_tokens_come_back_with_time(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", rate=5.0, burst=1))
    context = client_context(pki, pki.alice)
    with get_in(lb.port, context):
        pass

    def again() -> bool:
        client = try_to_get_in(lb.port, context)
        if client is None:
            return False
        client.close()
        return True

    wait_until(again, "a token is there again")


def test_a_refused_attempt_costs_nothing(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """Refusals by the concurrent cap must not eat the tokens of later attempts."""
    lb = balance(upstream)
    limits = RateLimitManager("alice", max_open=1, rate=FOREVER, burst=3)
    lb.policy.limit(pki.alice, "web", limits=limits)
    context = client_context(pki, pki.alice)
    for _ in range(3):
        with get_in(lb.port, context):
            for _ in range(4):
                assert try_to_get_in(lb.port, context) is None
        wait_until(lambda: limits.open == 0, "the slot is given back")
    assert try_to_get_in(lb.port, context) is None
    assert len(lb.records.wait(12, reason="concurrent")) == 12
    assert len(lb.records.wait(1, reason="rate")) == 1


def test_a_token_comes_back_when_no_upstream_answers(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Refuser()))
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", rate=FOREVER, burst=1))
    context = client_context(pki, pki.alice)
    for _ in range(5):
        assert try_to_get_in(lb.port, context) is None
    assert len(lb.records.wait(5, reason="connect_failed")) == 5
    assert limits.open == 0


def test_a_token_does_not_come_back_when_the_client_leaves(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", rate=FOREVER, burst=1))
    context = client_context(pki, pki.alice)
    with get_in(lb.port, context) as client:
        client.reset()
    assert try_to_get_in(lb.port, context) is None
    lb.record(reason="rate")


# ---- a slot comes back whatever happens ----------------------------------------------------------


def is_past_the_limit(lb: Balancer, client: TlsClient) -> bool:
    return any(
        connection["source"] == client.source and connection["stage"] in ("dial", "forward")
        for connection in lb.engine.connections()
    )


def leave_politely(lb: Balancer, context: ssl.SSLContext) -> None:
    with TlsClient(lb.port, context) as client:
        client.handshake()
        client.echo(b"x")


def leave_by_reset(lb: Balancer, context: ssl.SSLContext) -> None:
    with TlsClient(lb.port, context) as client:
        client.handshake()
        wait_until(lambda: is_past_the_limit(lb, client), "it is admitted")
        client.reset()


def leave_by_fin(lb: Balancer, context: ssl.SSLContext) -> None:
    with TlsClient(lb.port, context) as client:
        client.handshake()
        wait_until(lambda: is_past_the_limit(lb, client), "it is admitted")
        client.send_fin()
        client.receive_to_end()


def stay_until_refused(lb: Balancer, context: ssl.SSLContext) -> None:
    with TlsClient(lb.port, context) as client:
        client.handshake()
        client.sock.settimeout(20)
        client.receive_to_end()


def speak_and_stay(lb: Balancer, context: ssl.SSLContext) -> None:
    with TlsClient(lb.port, context) as client:
        client.handshake()
        client.send(b"x")
        client.receive_to_end()


@pytest.mark.parametrize(
    ("make_upstream", "visit", "options"),
    [
        (Upstream, leave_politely, {}),
        (Upstream, leave_by_reset, {}),
        (Upstream, leave_by_fin, {}),
        (lambda: Upstream(hold), leave_by_reset, {}),
        (lambda: Upstream(resetter(b"hi")), speak_and_stay, {}),
        (Refuser, stay_until_refused, {}),
        (Blackhole, stay_until_refused, {"connect_timeout": 0.05}),
        (Blackhole, leave_by_reset, {"connect_timeout": 5.0}),
        (Blackhole, leave_by_fin, {"connect_timeout": 5.0}),
        (lambda: Upstream(hold), stay_until_refused, {"idle_timeout": 0.05}),
    ],
    ids=[
        "polite", "client reset", "client fin", "client reset, upstream stuck", "upstream reset",
        "dial refused", "dial timeout", "client reset in dial", "client fin in dial", "idle",
    ],
)  # fmt: skip
def test_slots_come_back(
    balance: MakeBalancer,
    keep: Keep,
    pki: Pki,
    make_upstream: Callable[[],
    Any],
    visit: Callable[...,
    None],
    options: Options,
) -> None:
    lb = balance(keep(make_upstream()), app=options)
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=4))
    context = client_context(pki, pki.alice)
    for _ in range(5):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: visit(lb, context), range(4)))
        wait_until(lambda: limits.open == 0, "all slots are given back")
    assert limits.admitted == 20
    assert limits.refused == 0


def test_slots_come_back_when_access_is_lost_and_at_stop(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=2))
    with connect(pki, lb.port) as client:
        client.echo(b"x")
        lb.engine.set_policy([])
        client.receive_to_end()
    wait_until(lambda: limits.open == 0, "the slot is given back")
    lb.engine.set_policy(None)
    with connect(pki, lb.port) as client:
        client.echo(b"x")
        assert limits.open == 1
        lb.engine.stop()
        assert limits.open == 0


def test_as_many_as_before_fit_after_a_thousand_that_ended_badly(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, pki: Pki
) -> None:
    """Not one fewer because of a slot that was lost, not one more because of one given back twice."""
    most, rounds = 10, 25
    limits = RateLimitManager("alice", max_open=most)
    refuser, hole = keep(Refuser()), keep(Blackhole())
    lb = balance(upstream, app={"idle_timeout": 0.05})
    lb.policy.limit(pki.alice, "web", "refusing", "silent", "in use", limits=limits)
    refusing, silent = lb.add("refusing", refuser), lb.add("silent", hole, connect_timeout=0.05)
    in_use = lb.add("in use", upstream)
    context = client_context(pki, pki.alice)

    def visit(number: int) -> None:
        way = number % 5
        port = (lb.port, lb.port, refusing.port, silent.port, lb.port)[way]
        with TlsClient(port, context) as client:
            if way == 0:
                client.sock.sendall(client.first_flight())  # and no more
                client.reset()
                return
            client.handshake()
            if way == 1:
                with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # it was idle for too long
                    client.sock.sendall(client.seal(b"x"))
                client.reset()
            else:
                client.receive_to_end()  # no dial, no answer to a dial, idle

    for _ in range(rounds):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(visit, range(40)))
    lb.wait_quiet()
    clients = [keep(TlsClient(in_use.port, context)) for _ in range(3 * most)]
    with ThreadPoolExecutor(8) as pool:
        served = list(pool.map(lambda client: client.handshake().is_served(), clients))
    assert served.count(True) == limits.open == most


# ---- the application's own scope -----------------------------------------------------------------


def test_a_full_application(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream, app={"max_connections": 10})
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=50))
    context = client_context(pki, pki.alice)
    inside = all_at_once(40, lb.port, context)
    assert len(inside) == 10
    assert limits.open == 10
    records = lb.records.wait(30, event="conn.deny")
    assert {(r.stage, r.reason, r.scope) for r in records} == {("limit", "app_full", "application")}
    for client in inside:
        client.close()
    lb.wait_quiet()
    with get_in(lb.port, context) as client:
        client.echo(b"room again")


def test_a_full_application_costs_the_client_nothing(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream, app={"max_connections": 1})
    limits = RateLimitManager("alice", max_open=2, rate=FOREVER, burst=2)
    lb.policy.limit(pki.alice, "web", limits=limits)
    context = client_context(pki, pki.alice)
    with get_in(lb.port, context):
        for _ in range(5):
            assert try_to_get_in(lb.port, context) is None
        assert limits.open == 1
    wait_until(lambda: lb.app.open_connections == 0, "it is over")
    with get_in(lb.port, context) as client:
        client.echo(b"the second token is still there")
    assert len(lb.records.wait(5, reason="app_full")) == 5


# ---- plaintext: by source address ----------------------------------------------------------------


def from_address(address: str, port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10, source_address=(address, 0))


def plain_in(address: str, port: int) -> socket.socket | None:
    """An echoing connection, or None when it was refused."""
    client = from_address(address, port)
    try:
        client.sendall(b"?")
        if client.recv(1) == b"?":
            return client
    except ConnectionResetError:
        pass
    client.close()
    return None


def test_plaintext_clients_are_counted_by_address(
    balance: MakeBalancer, upstream: Upstream, keep: Keep
) -> None:
    lb = balance(upstream, plaintext=True, source_limits=lbcore.LimitClass(max_open=2))
    first = [keep(plain_in("127.0.0.1", lb.port)) for _ in range(2)]
    assert all(first)
    assert plain_in("127.0.0.1", lb.port) is None
    assert keep(plain_in("127.0.0.2", lb.port)) is not None
    record = lb.record(event="conn.deny")
    assert (record.stage, record.reason, record.scope) == ("limit", "concurrent", "client")
    assert record.client is None
    assert upstream.accepted == 3


def test_plaintext_clients_have_a_rate(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    lb = balance(upstream, plaintext=True, source_limits=lbcore.LimitClass(rate=FOREVER, burst=2))
    for _ in range(2):
        assert keep(plain_in("127.0.0.1", lb.port)) is not None
    assert plain_in("127.0.0.1", lb.port) is None
    assert lb.record(event="conn.deny").reason == "rate"


def test_a_plaintext_refusal_is_a_clean_end(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    lb = balance(upstream, plaintext=True, app={"max_connections": 1})
    assert keep(plain_in("127.0.0.1", lb.port)) is not None
    with plain(lb.port) as client:
        assert read_to_end(client) == (b"", End.FIN)
    assert lb.record(event="conn.deny").reason == "app_full"
