"""Stage 5, limit: windows, waiting, shadows, replacement, and scopes inside scopes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_to_end
from kit.upstreams import Refuser, Upstream, greeter, hold, reply_after_end
from kit.waiting import wait_until

import lbcore
from lbcore import LimitClass, RateLimitManager

FOREVER = 10_000.0  # seconds


@pytest.fixture
def limit(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> Callable[..., Any]:
    """Makes a balancer whose alice has these limits: (balancer, manager)."""

    def make(
        *, to: Any = None, app: dict[str, Any] | None = None, workers: int = 2, **limits: Any
    ) -> tuple[Any, Any]:
        lb = balance(to or upstream, app=app or {}, engine={"workers": workers})
        return lb, lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", **limits))

    return make


def got_in(lb: Balancer, pki: Pki) -> bool:
    """Whether alice is served; she leaves at once."""
    with connect(pki, lb.port) as client:
        client.send(b"?")
        try:
            return client.receive(1) == b"?"
        except AssertionError:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
            return False


# ---- window --------------------------------------------------------------------------------------


def test_a_burst_of_twenty_against_five_a_window(limit: Callable[..., Any], pki: Pki) -> None:
    lb, manager = limit(window=(5, FOREVER))
    assert sum(got_in(lb, pki) for _ in range(20)) == 5
    assert len(lb.records.wait(15, reason="window", stage="limit", scope="client")) == 15
    assert (manager.admitted, manager.refused) == (5, 15)


def test_hammering_does_not_starve_the_refill(limit: Callable[..., Any], pki: Pki) -> None:
    lb, _ = limit(window=(3, 0.6))
    watch = Stopwatch()
    admitted = []
    while watch.seconds < 2:
        before = watch.seconds
        if got_in(lb, pki):
            admitted.append((before, watch.seconds))
    assert 9 <= len(admitted) <= 12
    for first, fourth in zip(admitted, admitted[3:], strict=False):
        assert fourth[1] - first[0] >= 0.6


def test_a_failed_dial_does_not_use_up_a_window(keep: Keep, limit: Callable[..., Any], pki: Pki) -> None:
    dead = keep(Refuser())
    lb, _ = limit(to=dead, app={"passive_failures": 0}, window=(2, FOREVER))
    for _ in range(6):
        with connect(pki, lb.port) as client:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
    lb.records.wait(6, reason="connect_failed")
    assert lb.records.all(reason="window") == []


# ---- delay ---------------------------------------------------------------------------------------


def test_held_connections_dial_nothing_and_are_served_in_their_order(
    limit: Callable[..., Any], upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    lb, manager = limit(workers=1, rate=5, burst=1, on_exceed="delay", max_wait=20)
    clients = []
    for number in range(5):
        client = keep(connect(pki, lb.port))
        client.send(b"%d" % number)  # held with it
        clients.append(client)
        wait_until(lambda n=number: manager.admitted + manager.waiting == n + 1)  # type: ignore[misc]
    assert manager.waiting >= 3
    assert upstream.accepted <= manager.admitted + 1
    for number, client in enumerate(clients):
        assert client.receive(1) == b"%d" % number
    for client in clients:
        client.close()
    waits = sorted(record.waited_ms or 0 for record in lb.records.wait(5, event="conn.close"))
    assert waits[0] == 0
    assert all(200 * n - 120 <= wait <= 200 * n + 1500 for n, wait in enumerate(waits))


def test_a_wait_ends_with_max_wait(limit: Callable[..., Any], upstream: Upstream, pki: Pki) -> None:
    lb, manager = limit(max_open=1, on_exceed="delay", max_wait=0.5)
    with connect(pki, lb.port) as first:
        first.echo(b"x")
        watch = Stopwatch()
        with connect(pki, lb.port) as second:
            assert second.receive_to_end()[1] is End.CLOSE_NOTIFY
        assert 0.5 <= watch.seconds < 3
        record = lb.record(reason="limit_wait")
        assert (record.event, record.stage, record.scope) == ("conn.deny", "limit", "client")
        assert 500 <= record.waited_ms < 2500
        assert manager.waiting == 0
    assert upstream.accepted == 1


def test_a_freed_slot_goes_to_who_waits(limit: Callable[..., Any], pki: Pki, keep: Keep) -> None:
    lb, manager = limit(max_open=1, on_exceed="delay", max_wait=20)
    first = keep(connect(pki, lb.port))
    first.echo(b"x")
    second = keep(connect(pki, lb.port))
    wait_until(lambda: manager.waiting == 1)
    first.close()
    second.echo(b"y")
    assert (manager.open, manager.waiting) == (1, 0)


def test_a_newcomer_does_not_overtake(limit: Callable[..., Any], pki: Pki, keep: Keep) -> None:
    """In order on each worker; workers take turns."""
    lb, manager = limit(workers=1, max_open=2, on_exceed="delay", max_wait=20)
    held = [keep(connect(pki, lb.port)) for _ in range(2)]
    for client in held:
        client.echo(b"x")
    waiting = []
    for number in range(4):
        client = keep(connect(pki, lb.port))
        client.send(b"%d" % number)
        waiting.append(client)
        wait_until(lambda n=number: manager.waiting == n + 1)  # type: ignore[misc]
    for number, client in enumerate(waiting):
        (held[number] if number < 2 else waiting[number - 2]).close()
        assert client.receive(1) == b"%d" % number


def test_who_leaves_while_it_waits_is_gone(limit: Callable[..., Any], upstream: Upstream, pki: Pki) -> None:
    lb, manager = limit(max_open=1, on_exceed="delay", max_wait=60)
    with connect(pki, lb.port) as first:
        first.echo(b"x")
        second, third = connect(pki, lb.port), connect(pki, lb.port)
        wait_until(lambda: manager.waiting == 2)
        second.reset()
        third.send_fin()
        lb.records.wait(2, reason="client_gone")
        third.close()
        wait_until(lambda: manager.waiting == 0)
    assert upstream.accepted == 1


def test_a_half_close_is_kept_while_it_waits(limit: Callable[..., Any], keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(reply_after_end(b"answer")))
    lb, manager = limit(to=upstream, max_open=1, on_exceed="delay", max_wait=60)
    first = keep(connect(pki, lb.port))
    lb.wait_open(1)
    with connect(pki, lb.port) as second:
        second.send(b"question")
        second.send_close_notify()
        wait_until(lambda: manager.waiting == 1)
        first.close()
        assert second.receive_to_end() == (b"answer", End.CLOSE_NOTIFY)
    assert bytes(upstream.session(1).received) == b"question"


def test_a_server_that_speaks_first_is_heard_after_the_wait(
    limit: Callable[..., Any], keep: Keep, pki: Pki
) -> None:
    lb, _ = limit(to=keep(Upstream(greeter(b"hello"))), rate=4, burst=1, on_exceed="delay", max_wait=10)
    for _ in range(3):
        with connect(pki, lb.port) as client:
            assert client.receive(5) == b"hello"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_greedy_client_waits_behind_itself(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep, workers: int
) -> None:
    """Both are held back by the application; each gets every other turn while both wait."""
    shared = RateLimitManager("app", rate=3, burst=1, on_exceed="delay", max_wait=60, scope="application")
    lb = balance(upstream, app={"limits": shared}, engine={"workers": workers})
    greedy = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice"))
    modest = lb.policy.limit(pki.bob, "web", limits=RateLimitManager("bob"))
    many = [keep(connect(pki, lb.port)) for _ in range(40)]
    wait_until(lambda: shared.waiting >= 20)  # how many got in meanwhile depends on the machine
    before = greedy.admitted
    few = [keep(connect(pki, lb.port, pki.bob)) for _ in range(2)]
    for client in few:
        client.echo(b"x")
    assert modest.admitted == 2
    assert greedy.admitted - before <= 14  # it would have been all 20 of them
    for client in (*many, *few):
        client.reset()  # polite ones would be half-closed, and keep their places
    wait_until(lambda: shared.waiting == shared.open == 0)


def test_stop_does_not_wait_for_who_waits(limit: Callable[..., Any], pki: Pki, keep: Keep) -> None:
    lb, manager = limit(max_open=1, on_exceed="delay", max_wait=60)
    clients = [keep(connect(pki, lb.port)) for _ in range(3)]
    wait_until(lambda: manager.waiting == 2)
    lb.engine.stop()
    assert (manager.open, manager.waiting) == (0, 0)
    assert all(client.receive_to_end()[1] is not End.CLOSE_NOTIFY for client in clients)


def test_a_policy_that_withdraws_access_ends_the_wait(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    allowed = lbcore.PolicyClient("alice", [pki.alice.serial], ["web"])
    lb = balance(upstream, policy=[allowed])
    manager = lb.policy.limit(
        pki.alice, "web", limits=RateLimitManager("alice", max_open=1, on_exceed="delay", max_wait=60)
    )
    keep(connect(pki, lb.port)), keep(connect(pki, lb.port))
    wait_until(lambda: manager.waiting == 1)
    lb.engine.set_policy([])
    assert len(lb.records.wait(2, reason="revoked_while_open")) == 2
    assert (manager.open, manager.waiting) == (0, 0)


def test_an_outer_scope_that_refuses_ends_the_wait_for_an_inner_one(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    outer = RateLimitManager("app", max_open=2, scope="application")
    lb = balance(upstream, app={"limits": outer})
    inner = lb.policy.limit(
        pki.alice, "web",
        limits=RateLimitManager("alice", max_open=1, on_exceed="delay", max_wait=60),
    )  # fmt: skip
    lb.policy.limit(pki.bob, "web", limits=RateLimitManager("bob"))
    first = keep(connect(pki, lb.port))
    first.echo(b"x")
    second = keep(connect(pki, lb.port))
    wait_until(lambda: inner.waiting == 1)
    others = [keep(connect(pki, lb.port, pki.bob)) for _ in range(1)]
    others[0].echo(b"x")
    wait_until(lambda: outer.open == 2)
    keep(connect(pki, lb.port, pki.bob))
    assert lb.records.wait(reason="app_full")[0].client == "bob"
    first.close()
    second.echo(b"y")  # alice's slot, and the application's
    assert (inner.open, outer.open) == (1, 2)


# ---- shadow --------------------------------------------------------------------------------------


def test_a_shadow_admits_and_says_what_it_would_have_done(limit: Callable[..., Any], pki: Pki) -> None:
    lb, manager = limit(max_open=1, window=(2, FOREVER), on_exceed="shadow")
    with connect(pki, lb.port) as first, connect(pki, lb.port) as second:
        first.echo(b"x")
        second.echo(b"x")
        assert manager.open == 2
    wait_until(lambda: manager.open == 0)
    assert got_in(lb, pki)
    said = sorted(str(record.would_deny) for record in lb.records.wait(3, event="conn.close"))
    assert said == ["None", "concurrent", "window"]
    assert (manager.admitted, manager.refused, manager.would_refuse) == (3, 0, 2)


# ---- replacement ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_the_oldest_gives_its_place(
    balance: MakeBalancer, keep: Keep, pki: Pki, workers: int
) -> None:
    upstream = keep(Upstream())
    lb = balance(upstream, engine={"workers": workers})
    manager = lb.policy.limit(
        pki.alice, "web", limits=RateLimitManager("alice", max_open=3, replace_oldest=True)
    )
    clients = []
    gone = set()
    for number in range(8):
        clients.append(keep(connect(pki, lb.port)))
        wait_until(lambda n=number: manager.admitted == n + 1)  # type: ignore[misc]
        assert manager.open <= 3
        if number >= 3:
            gone.add(clients[number - 3].source)
            assert clients[number - 3].receive_to_end()[1] is End.RESET
    assert upstream.session(0).wait_end() is End.RESET
    records = lb.records.wait(5, reason="replaced")
    assert len(records) == 5
    assert {record.source for record in records} == gone


def test_a_crowd_of_newcomers_never_passes_the_cap(balance: MakeBalancer, keep: Keep) -> None:
    upstream = keep(Upstream(hold))
    lb = balance(upstream, plaintext=True, source_limits=LimitClass(max_open=20, replace_oldest=True))
    samples: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            samples.append(sum(c["stage"] == "forward" for c in lb.engine.connections()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        with ThreadPoolExecutor(50) as pool:
            clients = [keep(sock) for sock in pool.map(lambda _: plain(lb.port), range(200))]
        # One may give up after a second, when somebody has gone for it already: a place is free then.
        wait_until(lambda: len(lb.records.all()) + lb.stages().count("forward") == 200)
    finally:
        done.set()
        watcher.join()
    assert max(samples) <= 20
    assert {record.reason for record in lb.records.all()} <= {"replaced", "concurrent"}
    assert 10 <= lb.stages().count("forward") <= 20
    assert len(clients) == 200


def test_two_engines_do_not_replace_each_others_connections(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    manager = RateLimitManager("alice", max_open=2, replace_oldest=True)
    one, two = balance(keep(Upstream())), balance(keep(Upstream()))
    for lb in (one, two):
        lb.policy.limit(pki.alice, "web", limits=manager)
    held = [keep(connect(pki, one.port)) for _ in range(2)]
    for client in held:
        client.echo(b"x")
    with connect(pki, two.port) as client:
        assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
    assert two.record().reason == "concurrent"
    for client in held:
        client.echo(b"still there")


# ---- lifetime ------------------------------------------------------------------------------------


def test_a_lifetime_is_exact_and_ends_as_an_abort(
    limit: Callable[..., Any], pki: Pki, upstream: Upstream
) -> None:
    lb, _ = limit(max_lifetime=0.7)
    with connect(pki, lb.port) as client:
        watch = Stopwatch()
        while watch.seconds < 0.5:
            client.echo(b"x")  # a busy connection ends as well
        assert client.receive_to_end()[1] is End.RESET
        assert 0.6 <= watch.seconds < 3
    assert lb.record().reason == "max_lifetime"
    assert upstream.session().wait_end() is End.RESET


# ---- scopes --------------------------------------------------------------------------------------


def test_the_level_that_refuses_is_named_and_nothing_stays_taken(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    """Client (3) in application (5) in global (8)."""
    node = RateLimitManager("node", max_open=8, scope="global")
    lb = balance(
        upstream, app={"limits": RateLimitManager("web", max_open=5, scope="application", parent=node)}
    )
    outer = RateLimitManager("other", max_open=5, scope="application", parent=node)
    other = lb.add("other", upstream, limits=outer)
    alice = lb.policy.limit(pki.alice, "web", "other", limits=RateLimitManager("alice", max_open=3))
    bob = lb.policy.limit(pki.bob, "web", "other", limits=RateLimitManager("bob", max_open=30))

    def attempt(port: int, identity: Any) -> None:
        keep(connect(pki, port, identity))

    for _ in range(4):
        attempt(lb.port, pki.alice)
    assert [r.scope for r in lb.records.wait(1)] == ["client"]
    for _ in range(3):
        attempt(lb.port, pki.bob)
    assert [r.scope for r in lb.records.wait(2)] == ["client", "application"]
    for _ in range(4):
        attempt(other.port, pki.bob)
    records = lb.records.wait(3)
    assert [(r.scope, r.reason) for r in records] == [
        ("client", "concurrent"), ("application", "app_full"), ("global", "concurrent"),
    ]  # fmt: skip
    assert (alice.open, bob.open, node.open) == (3, 5, 8)


def test_a_manager_that_is_there_twice_counts_once(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    app = RateLimitManager("web", max_open=2, scope="application")
    lb = balance(upstream, app={"limits": app})
    lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", parent=app))
    for _ in range(2):
        keep(connect(pki, lb.port)).echo(b"x")
    assert app.open == 2


def test_plaintext_listeners_have_all_of_it(balance: MakeBalancer, keep: Keep) -> None:
    upstream = keep(Upstream())
    lb = balance(
        upstream, plaintext=True,
        source_limits=LimitClass(window=(3, FOREVER), max_lifetime=60, bandwidth_in=1e6),
    )  # fmt: skip

    def served() -> bool:
        with plain(lb.port) as sock:
            sock.sendall(b"x")
            sock.shutdown(socket.SHUT_WR)
            return read_to_end(sock)[0] == b"x"

    assert [served() for _ in range(5)] == [True] * 3 + [False] * 2
    assert len(lb.records.wait(2, reason="window")) == 2
