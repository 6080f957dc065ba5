"""Whatever Python code hands to the public API, it gets an exception that says something, never a crash."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.leaks import descriptors
from kit.pki import Pki
from kit.racing import at_once

import lbcore

#: What misuse may raise.
ALLOWED = (TypeError, ValueError, OSError, RuntimeError, MemoryError, OverflowError)

ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.tuples(st.integers(-5, 5), st.floats(-5, 5)),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from(["refuse", "delay", "shadow", "client", "global", "127.0.0.1:1", "[::]:0", "eof", "s2n"]),
    st.builds(object),
    st.just(print),
    st.just(lbcore.UpstreamServer),
)


def outcome(call: Callable[[], Any]) -> tuple[Any, str | None]:
    """What it returns, and None; or None, and what its exception says."""
    try:
        return call(), None
    except ALLOWED as error:
        return None, str(error)


@pytest.fixture(scope="module")
def engine() -> Iterator[lbcore.Engine]:
    made = lbcore.Engine(workers=1)
    made.start()
    yield made
    made.stop()


def keywords(*names: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), ANYTHING, max_size=4)


LIMITS = (
    "max_open", "rate", "burst", "window", "bandwidth_in", "bandwidth_out", "max_lifetime", "on_exceed",
    "max_wait", "replace_oldest",
)  # fmt: skip

CONSTRUCTORS: dict[str, tuple[Callable[..., Any], int, tuple[str, ...]]] = {
    "RateLimitManager": (lbcore.RateLimitManager, 1, (*LIMITS, "scope", "parent", "clock")),
    "LimitClass": (lbcore.LimitClass, 0, LIMITS),
    "ManualClock": (lbcore.ManualClock, 1, ()),
    "UpstreamServer": (lbcore.UpstreamServer, 2, ("max_connections",)),
    "Application": (
        lbcore.Application, 2,
        ("max_connections", "limits", "engine", "connect_timeout", "connect_attempts", "idle_timeout",
         "half_close_timeout", "tcp_keepalive", "on_truncated", "passive_failures", "passive_eject",
         "max_ejected"),
    ),
    "Engine": (
        lbcore.Engine, 0,
        ("workers", "max_connections", "max_unauthenticated", "handshake_timeout", "authorize_timeout",
         "authorize_threads", "tls_engine", "on_records", "record_lines", "record_selection"),
    ),
    "RecordLines": (lbcore.RecordLines, 3, ()),
    "RecordSelection": (lbcore.RecordSelection, 0, ("sample", "refusals", "on_sums")),
    "ServerTLS": (lbcore.ServerTLS, 3, ("alpn",)),
    "Verdict": (lbcore.Verdict, 1, ("client", "reason", "limits", "ttl")),
    "PolicyClient": (lbcore.PolicyClient, 3, ("disabled",)),
    "Simulation": (lbcore.Simulation, 1, ("clock", "seed")),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSTRUCTORS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_constructors(name: str, data: st.DataObject) -> None:
    make, positional, names = CONSTRUCTORS[name]
    arguments = [data.draw(ANYTHING) for _ in range(positional)]
    options = data.draw(keywords(*names)) if names else {}
    made, said = outcome(lambda: make(*arguments, **options))
    if said is not None:
        assert said
        return
    repr(made)
    for attribute in dir(made):
        if not attribute.startswith("_"):
            outcome(lambda name=attribute: getattr(made, name))  # type: ignore[misc]  # of this round


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(options=keywords("limits", "tls", "authorize", "client", "on_done"), sock=ANYTHING)
def test_submit_connection(engine: lbcore.Engine, options: dict[str, Any], sock: Any) -> None:
    app = lbcore.Application("web", [lbcore.UpstreamServer("127.0.0.1:1")], engine=engine)
    if isinstance(sock, int) and 0 <= sock < 1000:
        sock = 5000  # not a descriptor of this process
    with pytest.raises(ALLOWED):
        app.submit_connection(sock, **options)
    mine, peer = socket.socketpair()
    with mine, peer, pytest.raises(ALLOWED):
        app.submit_connection(mine, **options)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    application=ANYTHING, address=ANYTHING, options=keywords("tls", "plaintext", "authorize", "source_limits")
)
def test_listen(engine: lbcore.Engine, application: Any, address: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ALLOWED):
        engine.listen(application, address, **options)
    app = lbcore.Application("web", [lbcore.UpstreamServer("127.0.0.1:1")])
    options.setdefault("authorize", 5)
    with pytest.raises(ALLOWED):
        engine.listen(app, address, **options)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(clients=ANYTHING, drain=ANYTHING)
def test_engine_calls(engine: lbcore.Engine, clients: Any, drain: Any) -> None:
    if clients is not None and clients not in ([], {}, "", b"", ()):
        with pytest.raises(ALLOWED):
            engine.set_policy(clients)
    if isinstance(drain, bool) or not isinstance(drain, (int, float)) or not drain >= 0:
        with pytest.raises(ALLOWED):
            engine.stop(drain)


@settings(max_examples=300, deadline=None)
@given(bytes_in=ANYTHING, bytes_out=ANYTHING, data=ANYTHING, seconds=ANYTHING)
def test_limiter_calls(bytes_in: Any, bytes_out: Any, data: Any, seconds: Any) -> None:
    clock = lbcore.ManualClock()
    manager = lbcore.RateLimitManager("c", rate=5, window=(3, 1), bandwidth_in=1000, clock=clock)
    for call in (
        lambda: manager.data_transferred(bytes_in, bytes_out),
        lambda: manager.restore(data),
        lambda: clock.advance(seconds),
        manager.connection_closed,
    ):
        assert outcome(call)[1] != ""
    assert manager.connection_opened()
    manager.connection_closed()


@pytest.mark.parametrize(
    "kind",
    [lbcore.RateLimitManager, lbcore.UpstreamServer, lbcore.Application, lbcore.Engine, lbcore.Listener,
     lbcore.Simulation, lbcore.SimulatedConnection],
)  # fmt: skip
def test_objects_whose_init_was_skipped(kind: type) -> None:
    made = kind.__new__(kind)
    for name in dir(made):
        if name.startswith("__"):
            continue
        with contextlib.suppress(*ALLOWED, AttributeError):
            value = getattr(made, name)
            if callable(value):
                value()
    with contextlib.suppress(*ALLOWED, AttributeError):
        repr(made)


def test_objects_that_are_made_twice() -> None:
    manager = lbcore.RateLimitManager("c", window=(3, 1), replace_oldest=True, max_open=2)
    server = lbcore.UpstreamServer("127.0.0.1:1")
    app = lbcore.Application("web", [server])
    for made, arguments in ((manager, ("d",)), (server, ("127.0.0.1:2",)), (app, ("other", [server]))):
        with pytest.raises((RuntimeError, ValueError)):
            made.__init__(*arguments)  # type: ignore[misc]  # that is the test


def test_after_stop_everything_says_so(pki: Pki) -> None:
    engine = lbcore.Engine(workers=1)
    engine.start()
    app = lbcore.Application("web", [lbcore.UpstreamServer("127.0.0.1:1")], engine=engine)
    listener = engine.listen(app, "127.0.0.1:0", plaintext=True)
    engine.stop()
    listener.close()
    assert engine.connections() == []
    assert engine.stats()["open"] == 0
    assert engine.stop()
    door = socket.create_server(("127.0.0.1", 0))
    with door, socket.create_connection(door.getsockname()), door.accept()[0] as accepted:
        for call in (
            engine.start,
            lambda: engine.listen(app, "127.0.0.1:0", plaintext=True),
            lambda: engine.set_policy(None),
            lambda: app.submit_connection(accepted),
        ):
            with pytest.raises(RuntimeError, match="stopped"):
                call()
        assert accepted.fileno() >= 0


def test_from_many_threads_while_it_stops(pki: Pki) -> None:
    """Every call either does what it should or says that the engine is not running."""
    for _ in range(5):
        engine = lbcore.Engine(workers=2)
        engine.start()
        app = lbcore.Application("web", [lbcore.UpstreamServer("127.0.0.1:1")], engine=engine)
        door = socket.create_server(("127.0.0.1", 0), backlog=256)
        started = threading.Barrier(5)
        said: list[str] = []

        def busy(
            one: lbcore.Engine = engine, to: lbcore.Application = app, gate: threading.Barrier = started,
            server: socket.socket = door, said: list[str] = said,
        ) -> None:  # fmt: skip
            gate.wait(10)
            for _ in range(50):
                client = socket.create_connection(server.getsockname())
                accepted, _ = server.accept()
                try:
                    to.submit_connection(accepted)
                    one.connections()
                    one.stats()
                    one.listen(to, "127.0.0.1:0", plaintext=True).close()
                except RuntimeError as error:
                    accepted.close()
                    said.append(str(error))
                client.close()

        def stop(one: lbcore.Engine = engine, gate: threading.Barrier = started) -> None:
            gate.wait(10)
            one.stop()

        threads = [threading.Thread(target=stop)]
        threads += [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        door.close()
        assert engine.state == "stopped"
        assert all("not running" in text for text in said)


@pytest.mark.slow
def test_32_threads_and_100000_events_each() -> None:
    node = lbcore.RateLimitManager("node", max_open=24, scope="global")
    managers = [lbcore.RateLimitManager(f"c{i}", max_open=7, parent=node) for i in range(4)]
    highest = [0] * 32
    numbers = iter(range(32))

    def work() -> None:
        number = next(numbers)
        manager = managers[number % 4]
        top = 0
        for _ in range(50_000):
            if manager.connection_opened():
                top = max(top, node.open)
                manager.connection_closed()
        highest[number] = top

    at_once(32, work)
    assert [manager.open for manager in (node, *managers)] == [0] * 5
    assert 0 < max(highest) <= 24


def test_the_standard_streams_are_still_open() -> None:
    """A zeroed struct has descriptor 0 in it; objects that were never made must not close it."""
    for kind in (lbcore.Simulation, lbcore.Engine, lbcore.Listener):
        kind.__new__(kind)
    for number in range(3):
        os.fstat(number)


def test_the_process_has_its_descriptors_back() -> None:
    """After a thousand wrong hand-overs."""
    before = descriptors()
    app = lbcore.Application("web", [lbcore.UpstreamServer("127.0.0.1:1")])
    one, other = os.pipe()
    for _ in range(1000):
        with pytest.raises(ALLOWED):
            app.submit_connection(one)
    os.close(one)
    os.close(other)
    assert descriptors() == before
