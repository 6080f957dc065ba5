"""The deterministic twin: limits and picking without sockets, and the same verdicts as with them."""

from __future__ import annotations

import gc
import random
import socket
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit.fixtures import Keep
from kit.upstreams import Upstream
from kit.waiting import wait_until

import lbcore
from lbcore import Application, LimitClass, ManualClock, RateLimitManager, Simulation, UpstreamServer


def servers(count: int, **options: Any) -> list[UpstreamServer]:
    return [UpstreamServer(f"127.0.0.1:{port}", **options) for port in range(1, count + 1)]


def simulation(
    upstreams: int = 2, clock: ManualClock | None = None, seed: int = 0, **app: Any
) -> Simulation:
    return Simulation(
        Application("web", servers(upstreams), **app), clock=clock or ManualClock(), seed=seed
    )


# ---- the same as with sockets --------------------------------------------------------------------

FOREVER = 1e6  # seconds; nothing is refilled while a test runs


def scopes(clock: ManualClock | None) -> dict[str, RateLimitManager]:
    """Two clients in an application in the node; nothing in it depends on the time that a test takes."""
    node = RateLimitManager("node", max_open=9, scope="global", clock=clock)
    app = RateLimitManager(
        "app", window=(150, FOREVER), max_open=8, scope="application", parent=node, clock=clock
    )
    slow = RateLimitManager("slow", rate=1 / FOREVER, burst=15, max_open=5, clock=clock)
    quick = RateLimitManager("quick", window=(30, FOREVER), max_open=6, clock=clock)
    shadow = RateLimitManager("shadow", max_open=1, on_exceed="shadow", clock=clock)
    return {"node": node, "app": app, "slow": slow, "quick": quick, "shadow": shadow}


def trace(seed: int, events: int) -> list[tuple[str, int]]:
    """Opens by client and closes of the n-th open connection."""
    chance = random.Random(seed)
    return [
        (chance.choice(["slow", "quick", "quick", "shadow", "close", "close"]), chance.randrange(100))
        for _ in range(events)
    ]


def play(
    events: list[tuple[str, int]], open_one: Callable[[str], Any], close_one: Callable[[Any], None]
) -> None:
    held: list[Any] = []
    for what, number in events:
        if what != "close":
            connection = open_one(what)
            if connection is not None:
                held.append(connection)
        elif held:
            close_one(held.pop(number % len(held)))
    for connection in held:
        close_one(connection)


def simulated(events: list[tuple[str, int]]) -> list[tuple[str, str | None, str | None, str | None]]:
    clock = ManualClock()
    limits = scopes(clock)
    upstreams = servers(3)
    sim = Simulation(Application("web", upstreams, limits=limits["app"]), clock=clock)
    told: list[tuple[str, str | None, str | None, str | None]] = []

    def open_one(client: str) -> lbcore.SimulatedConnection | None:
        connection = sim.open(limits[client], client=client)
        record = connection.record
        told.append(
            (
                client,
                record.reason if record else None,
                record.scope if record else None,
                str(upstreams.index(connection.upstream)) if connection.upstream else None,
            )
        )
        return connection if record is None else None

    play(events, open_one, lambda connection: connection.close())
    assert [manager.open for manager in limits.values()] == [0] * 5
    return told


@pytest.mark.parametrize("seed", [1, 2])
def test_a_trace_gets_the_same_verdicts_from_the_simulation_and_from_sockets(keep: Keep, seed: int) -> None:
    events = trace(seed, 400)
    limits = scopes(None)
    upstreams = [keep(Upstream()) for _ in range(3)]
    addresses = [upstream.address for upstream in upstreams]
    door = keep(socket.create_server(("127.0.0.1", 0)))
    engine = lbcore.Engine(workers=1)
    engine.start()
    app = Application("web", [UpstreamServer(address) for address in addresses], limits=limits["app"])
    told: list[tuple[str, str | None, str | None, str | None]] = []

    def open_one(client: str) -> socket.socket | None:
        ours = socket.create_connection(door.getsockname())
        theirs, _ = door.accept()
        ended: list[lbcore.Record] = []
        name = app.submit_connection(theirs, limits[client], client=client, on_done=ended.append)

        def forwarded() -> str | None:
            found = [c for c in engine.connections() if c["id"] == name and c["stage"] == "forward"]
            return found[0]["upstream"] if found else None

        upstream = wait_until(lambda: ended or forwarded())
        if ended:
            ours.close()
            told.append((client, ended[0].reason, ended[0].scope, None))
            return None
        told.append((client, None, None, str(addresses.index(str(upstream)))))
        return ours

    def close_one(ours: socket.socket) -> None:
        before = app.open_connections
        ours.close()
        wait_until(lambda: app.open_connections < before)

    try:
        play(events, open_one, close_one)
        wait_until(lambda: limits["node"].open == 0)
    finally:
        engine.stop()
    assert told == simulated(events)
    reasons = {reason for _, reason, _, _ in told}
    assert reasons >= {None, "rate", "window", "app_full"}  # the trace is worth something


def test_the_same_calls_and_seed_give_the_same_answers() -> None:
    def run(seed: int) -> list[str]:
        clock = ManualClock()
        sim = simulation(5, clock, seed)
        limits = RateLimitManager("c", rate=20, burst=3, on_exceed="delay", max_wait=1, clock=clock)
        chance = random.Random(7)
        said = []
        for _ in range(500):
            connection = sim.open(limits)
            sim.advance(chance.random() / 10)
            said.append(f"{connection!r} {connection.upstream} {connection.record}")
            if chance.random() < 0.5:
                connection.close()
        return said

    assert run(3) == run(3)
    assert run(3) != run(4)


# ---- time ----------------------------------------------------------------------------------------


def test_a_window_and_nothing_but_the_clock_opens_it() -> None:
    clock = ManualClock()
    sim = simulation(clock=clock)
    limits = RateLimitManager("c", window=(5, 10), clock=clock)
    assert [sim.open(limits).reason for _ in range(20)] == [None] * 5 + ["window"] * 15
    sim.advance(9.999)
    assert sim.open(limits).reason == "window"
    sim.advance(0.001)
    assert [sim.open(limits).reason for _ in range(6)] == [None] * 5 + ["window"]


def test_delayed_ones_are_let_through_in_turn_and_give_up_in_time() -> None:
    clock = ManualClock()
    sim = simulation(clock=clock)
    limits = RateLimitManager("c", rate=10, burst=1, on_exceed="delay", max_wait=0.55, clock=clock)
    waiting = [sim.open(limits) for _ in range(10)]
    assert [one.state for one in waiting] == ["open"] + ["delayed"] * 9
    assert limits.waiting == 9
    sim.advance(0.32)
    assert [one.state for one in waiting] == ["open"] * 4 + ["delayed"] * 6
    sim.advance(1)
    assert [one.reason for one in waiting] == [None] * 6 + ["limit_wait"] * 4
    assert limits.waiting == 0
    assert all(0.55 <= one.record.waited_ms / 1000 < 0.6 for one in waiting[6:] if one.record)


def test_a_greedy_client_does_not_hold_up_a_modest_one() -> None:
    clock = ManualClock()
    shared = RateLimitManager(
        "app", rate=10, burst=1, on_exceed="delay", max_wait=60, scope="application", clock=clock
    )
    sim = simulation(clock=clock, limits=shared)
    greedy, modest = RateLimitManager("greedy", clock=clock), RateLimitManager("modest", clock=clock)
    many = [sim.open(greedy) for _ in range(50)]
    few = [sim.open(modest) for _ in range(2)]
    sim.advance(0.45)
    assert [one.state for one in few] == ["open", "open"]
    assert 2 <= sum(one.state == "open" for one in many) <= 4


def test_a_lifetime_ends_a_connection_and_a_shadow_does_not() -> None:
    clock = ManualClock()
    sim = simulation(clock=clock)
    mortal = sim.open(RateLimitManager("c", max_lifetime=5, clock=clock))
    shadow = sim.open(RateLimitManager("s", max_lifetime=5, on_exceed="shadow", clock=clock))
    sim.advance(4.9)
    assert mortal.state == "open"
    sim.advance(0.2)
    assert (mortal.reason, shadow.state) == ("max_lifetime", "open")


def test_the_oldest_is_replaced() -> None:
    clock = ManualClock()
    sim = simulation(clock=clock)
    limits = RateLimitManager("c", max_open=2, replace_oldest=True, clock=clock)
    held = [sim.open(limits) for _ in range(4)]
    sim.advance(0.1)
    assert [one.reason for one in held] == ["replaced", "replaced", None, None]
    assert limits.open == 2


# ---- picking -------------------------------------------------------------------------------------


def test_a_dead_upstream_is_left_out_and_comes_back() -> None:
    clock = ManualClock()
    sim = simulation(2, clock, passive_failures=3, passive_eject=10)
    dead, alive = sim.application.upstreams
    sim.fail(dead)
    assert {sim.open().upstream for _ in range(20)} == {alive}
    assert sim.ejected(dead)
    assert dead.errors == 3
    sim.recover(dead)
    sim.advance(12.5)  # a quarter of it by chance
    assert not sim.ejected(dead)
    assert [sim.open().upstream for _ in range(20)] == [dead] * 20  # the one with fewer connections


def test_all_down_is_a_failed_dial_and_then_no_upstream() -> None:
    sim = simulation(2, passive_failures=1, max_ejected=1.0)
    for server in sim.application.upstreams:
        sim.fail(server)
    first, second = sim.open(), sim.open()
    assert (first.reason, first.record.attempts if first.record else None) == ("connect_failed", 2)
    assert second.reason == "no_upstream"


@settings(max_examples=30, deadline=None)
@given(
    weights=st.lists(st.integers(1, 50), min_size=1, max_size=8),
    count=st.integers(1, 400),
    seed=st.integers(0, 2**32 - 1),
)
def test_open_connections_are_shared_out_by_weight(weights: list[int], count: int, seed: int) -> None:
    upstreams = [UpstreamServer(f"127.0.0.1:{i + 1}", weight) for i, weight in enumerate(weights)]
    sim = Simulation(Application("web", upstreams), clock=ManualClock(), seed=seed)
    held = [sim.open() for _ in range(count)]
    for server in upstreams:
        share = count * server.weight / sum(weights)
        assert abs(server.in_flight - share) <= len(weights)
    for connection in held:
        connection.close()
    assert [server.in_flight for server in upstreams] == [0] * len(upstreams)


@pytest.mark.slow
def test_a_million_events_leave_nothing_behind() -> None:
    clock = ManualClock()
    node = RateLimitManager("node", max_open=500, rate=2000, burst=100, scope="global", clock=clock)
    sim = simulation(8, clock, limits=node)
    clients = [
        RateLimitManager(f"c{i}", max_open=60, window=(100, 1), parent=node, clock=clock) for i in range(9)
    ]
    chance = random.Random(5)
    held: list[lbcore.SimulatedConnection] = []
    for _ in range(500_000):
        if chance.random() < 0.6:
            connection = sim.open(clients[chance.randrange(9)])
            if connection.state == "open":
                held.append(connection)
        elif held:
            held.pop(chance.randrange(len(held))).close()
        if chance.random() < 0.1:
            sim.advance(chance.random() / 100)
        assert node.open == len(held) <= 500
    for connection in held:
        connection.close()
    assert [manager.open for manager in (node, *clients)] == [0] * 10
    assert sim.application.open_connections == 0


# ---- misuse --------------------------------------------------------------------------------------


def test_an_application_serves_one_simulation_or_engines() -> None:
    app = Application("web", servers(1))
    clock = ManualClock()
    Simulation(app, clock=clock)
    with pytest.raises(ValueError, match="application: in use"):
        Simulation(app, clock=clock)
    engine = lbcore.Engine(workers=1)
    engine.start()
    try:
        with pytest.raises(ValueError, match="application: made for a simulation"):
            engine.listen(app, "127.0.0.1:0", plaintext=True)
        clocked = Application(
            "web", servers(1), limits=RateLimitManager("app", max_open=1, clock=clock)
        )
        with pytest.raises(ValueError, match="application: made for a simulation"):
            engine.listen(clocked, "127.0.0.1:0", plaintext=True)
    finally:
        engine.stop()


def test_everything_has_the_same_clock() -> None:
    clock = ManualClock()
    with pytest.raises(ValueError, match="application: its limits have another clock"):
        simulation(clock=clock, limits=LimitClass(max_open=1).manager("app"))
    with pytest.raises(ValueError, match="limits: they have another clock"):
        simulation(clock=clock).open(LimitClass(max_open=1).manager("c", clock=ManualClock()))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: Simulation(Application("a", servers(1)), clock=1), TypeError, "clock: "),
        (lambda: simulation(seed=-1), ValueError, "seed: "),
        (lambda: simulation().open(5), TypeError, "limits: "),
        (lambda: simulation().open(client=5), TypeError, "client: "),
        (lambda: simulation().advance(-1), ValueError, "seconds: "),
        (lambda: simulation().advance("x"), TypeError, "seconds: "),
        (lambda: simulation().fail(servers(1)[0]), ValueError, "upstream: "),
        (lambda: simulation().ejected(servers(1)[0]), ValueError, "upstream: "),
        (lambda: Simulation.__new__(Simulation).open(), RuntimeError, "__init__"),
        (lambda: Simulation.__new__(Simulation).fail(servers(1)[0]), ValueError, "upstream: "),
        (lambda: lbcore.SimulatedConnection().close(), RuntimeError, "Simulation.open"),
        (lambda: ManualClock("x"), TypeError, "start: "),  # type: ignore[arg-type]  # that is the test
    ],
)
def test_misuse_says_what_is_wrong(call: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


def test_a_simulation_that_is_dropped_gives_everything_back() -> None:
    clock = ManualClock()
    limits = RateLimitManager("c", max_open=3, on_exceed="delay", max_wait=5, clock=clock)
    sim = simulation(clock=clock)
    held = [sim.open(limits) for _ in range(5)]
    assert (limits.open, limits.waiting) == (3, 2)
    del sim, held
    gc.collect()  # the simulation knows its connections and they know it
    assert (limits.open, limits.waiting) == (0, 0)
