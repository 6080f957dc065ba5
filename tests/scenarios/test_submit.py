"""Sockets that somebody else accepted: handed over, forwarded, told about."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.clients import TlsClient, client_context
from kit.fixtures import Keep
from kit.memory import anonymous_bytes
from kit.pki import Pki
from kit.sockets import End, read_exactly, read_to_end, reset
from kit.upstreams import Blackhole, Refuser, Upstream, greeter, hold, reply_after_end, sink
from kit.waiting import wait_until

import lbcore
from lbcore import Application, Engine, ManualClock, RateLimitManager, ServerTLS, UpstreamServer, Verdict


class Front:
    """A server of one's own: accepts, and hands the sockets over."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A connection: the client's end, and the accepted one."""
        client = socket.create_connection(self.listener.getsockname()[:2])
        client.settimeout(15)
        accepted, _ = self.listener.accept()
        return client, accepted

    def close(self) -> None:
        self.listener.close()


class Ends:
    """An `on_done` that remembers."""

    def __init__(self) -> None:
        self.records: list[lbcore.Record] = []

    def __call__(self, record: lbcore.Record) -> None:
        self.records.append(record)

    def wait(self, count: int, timeout: float = 20) -> list[lbcore.Record]:
        wait_until(lambda: len(self.records) >= count, f"{count} ends", timeout=timeout)
        assert len(self.records) == count
        return self.records


@pytest.fixture
def front(keep: Keep) -> Front:
    return keep(Front())


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Afterwards it holds nothing by itself."""
    made = Engine(workers=2)
    made.start()
    yield made
    try:
        if made.running:
            wait_until(lambda: made.stats()["open"] == 0)
    finally:
        made.stop()


def application(*upstreams: Any, **options: Any) -> Application:
    return Application("web", [UpstreamServer(upstream.address) for upstream in upstreams], **options)


# ---- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["blocking", "non-blocking", "timeout", "number"])
def test_both_ways(engine: Engine, upstream: Upstream, front: Front, mode: str) -> None:
    app = application(upstream)
    client, accepted = front.pair()
    ends = Ends()
    with client:
        accepted.settimeout({"blocking": None, "non-blocking": 0.0, "timeout": 3.0, "number": None}[mode])
        client.sendall(b"early, ")  # before the hand-over
        handed: Any = accepted.detach() if mode == "number" else accepted
        name = app.submit_connection(handed, client="tenant", on_done=ends)
        assert accepted.fileno() == -1
        client.sendall(b"late")
        assert read_exactly(client, 11) == b"early, late"
        (connection,) = engine.connections()
        assert (connection["id"], connection["client"], connection["stage"]) == (name, "tenant", "forward")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == (b"", End.FIN)
    (record,) = ends.wait(1)
    assert (record.id, record.client, record.reason) == (name, "tenant", "client_closed")
    assert (record.app, record.bytes_in, record.bytes_out, record.event) == ("web", 11, 11, "conn.close")
    assert app.open_connections == 0


def test_over_ipv6(engine: Engine, upstream: Upstream, keep: Keep) -> None:
    client, accepted = keep(Front("::1")).pair()
    ends = Ends()
    with client:
        application(upstream).submit_connection(accepted, on_done=ends)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
    assert ends.wait(1)[0].source.startswith("[::1]:")


def test_a_server_that_speaks_first_and_a_half_close(engine: Engine, keep: Keep, front: Front) -> None:
    client, accepted = front.pair()
    with client:
        application(keep(Upstream(greeter(b"hello")))).submit_connection(accepted)
        assert read_exactly(client, 5) == b"hello"
    client, accepted = front.pair()
    with client:
        application(keep(Upstream(reply_after_end(b"bye")))).submit_connection(accepted)
        client.sendall(b"x")
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == (b"bye", End.FIN)


def test_a_peer_that_was_gone_before_is_no_exception(
    engine: Engine, keep: Keep, front: Front
) -> None:
    app = application(keep(Upstream()))
    ends = Ends()
    for vanish in (reset, lambda sock: sock.close()):
        client, accepted = front.pair()
        vanish(client)
        wait_until(lambda sock=accepted: _readable(sock))  # type: ignore[misc]  # of this round
        app.submit_connection(accepted, on_done=ends)
    reasons = {record.reason for record in ends.wait(2)}
    assert reasons <= {"client_gone", "client_reset", "client_closed"}


def _readable(sock: socket.socket) -> bool:
    import select

    return bool(select.select([sock], [], [], 0)[0])


# ---- whose it is ---------------------------------------------------------------------------------


def errors(front: Front, tmp: Any) -> dict[str, tuple[Callable[[], Any], type[Exception]]]:
    def udp() -> Any:
        return socket.socket(type=socket.SOCK_DGRAM)

    def unix() -> Any:
        one, other = socket.socketpair()
        other.close()
        return one

    def closed() -> Any:
        sock = socket.socket()
        sock.close()
        return sock

    def wrapped() -> Any:
        return ssl.create_default_context().wrap_socket(
            socket.create_connection(front.listener.getsockname()),
            do_handshake_on_connect=False,
            server_hostname="x",
        )

    return {
        "udp": (udp, ValueError),
        "unix": (unix, ValueError),
        "closed": (closed, ValueError),
        "not connected": (socket.socket, OSError),
        "listening": (lambda: socket.create_server(("127.0.0.1", 0)), ValueError),
        "tls in Python": (wrapped, TypeError),
        "text": (lambda: "7", TypeError),
        "nothing": (lambda: None, TypeError),
        "bool": (lambda: True, TypeError),
        "negative": (lambda: -1, ValueError),
        "huge": (lambda: 2**40, ValueError),
        "not open": (lambda: 987_654, OSError),
        "a file": (lambda: os.open(tmp / "file", os.O_CREAT | os.O_RDWR), OSError),
    }


@pytest.mark.parametrize(
    "what",
    ["udp", "unix", "closed", "not connected", "listening", "tls in Python", "text", "nothing", "bool",
     "negative", "huge", "not open", "a file"],
)  # fmt: skip
def test_what_is_no_connected_socket_stays_the_callers(
    engine: Engine, upstream: Upstream, front: Front, tmp_path: Any, what: str
) -> None:
    make, error = errors(front, tmp_path)[what]
    handed = make()
    with pytest.raises(error, match="sock"):
        application(upstream).submit_connection(handed)
    if isinstance(handed, socket.socket):
        assert what == "closed" or handed.fileno() >= 0
        handed.close()
    elif what == "a file":
        os.close(handed)
    if what == "tls in Python":
        front.listener.accept()[0].close()


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"limits": 5}, TypeError, "limits: "),
        ({"limits": RateLimitManager("c", clock=ManualClock())}, ValueError, "limits: "),
        ({"limits": RateLimitManager.__new__(RateLimitManager)}, ValueError, "limits: "),
        ({"tls": 5}, TypeError, "tls: "),
        ({"tls": ServerTLS(b"", b"", b"")}, TypeError, "authorize: "),
        ({"tls": ServerTLS(b"", b"", b""), "authorize": print}, ValueError, "client_ca: "),
        ({"authorize": print}, ValueError, "authorize: "),
        ({"client": 5}, TypeError, "client: "),
        ({"client": ""}, ValueError, "client: "),
        ({"on_done": 5}, TypeError, "on_done: "),
    ],
)
def test_a_wrong_argument_leaves_the_socket_as_it_was(
    engine: Engine,
    upstream: Upstream,
    front: Front,
    arguments: dict[str, Any],
    error: type[Exception],
    says: str,
    blocking: bool,
) -> None:
    client, accepted = front.pair()
    accepted.setblocking(blocking)
    with client, accepted:
        with pytest.raises(error, match=f"^{says}"):
            application(upstream).submit_connection(accepted, **arguments)
        assert os.get_blocking(accepted.fileno()) == blocking
        client.sendall(b"still mine")
        wait_until(lambda: _readable(accepted))
        assert accepted.recv(100) == b"still mine"
    assert upstream.accepted == 0


def test_of_several_threads_exactly_one_hands_it_over(
    engine: Engine, upstream: Upstream, front: Front
) -> None:
    app = application(upstream)
    for _ in range(20):
        client, accepted = front.pair()
        barrier = threading.Barrier(6)

        def one(_: int, sock: socket.socket = accepted, gate: threading.Barrier = barrier) -> str:
            gate.wait(10)
            try:
                return app.submit_connection(sock)
            except (ValueError, OSError) as error:
                return str(error)

        with client, ThreadPoolExecutor(6) as pool:
            said = list(pool.map(one, range(6)))
            assert sum("sock" in answer for answer in said) == 5
            client.sendall(b"x")
            assert read_exactly(client, 1) == b"x"


# ---- which engine --------------------------------------------------------------------------------


def test_the_one_engine_that_runs_or_the_one_it_was_told(upstream: Upstream, front: Front) -> None:
    app = application(upstream)
    client, accepted = front.pair()
    one, two = Engine(workers=1), Engine(workers=1)
    with client:
        with pytest.raises(RuntimeError, match="none is running"):
            app.submit_connection(accepted)
        one.start()
        two.start()
        with pytest.raises(RuntimeError, match="2 are running"):
            app.submit_connection(accepted)
        application(upstream, engine=two).submit_connection(accepted)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        assert (one.stats()["open"], two.stats()["open"]) == (0, 1)
        assert two.stats()["applications"]["web"]["open"] == 1
    one.stop()
    wait_until(lambda: two.stats()["open"] == 0)
    two.stop()
    client, accepted = front.pair()
    with client, accepted, pytest.raises(RuntimeError, match="not running, it is stopped"):
        application(upstream, engine=two).submit_connection(accepted)


def test_an_application_has_listeners_and_submissions_at_once(
    engine: Engine, upstream: Upstream, front: Front
) -> None:
    app = application(upstream, max_connections=2)
    listener = engine.listen(app, "127.0.0.1:0", plaintext=True)
    client, accepted = front.pair()
    ends = Ends()
    with client, socket.create_connection(("127.0.0.1", listener.port)) as other:
        other.sendall(b"x")
        assert read_exactly(other, 1) == b"x"
        app.submit_connection(accepted)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
        third, accepted = front.pair()
        with third:
            app.submit_connection(accepted, on_done=ends)
            assert read_to_end(third)[0] == b""
        assert (ends.wait(1)[0].reason, app.open_connections) == ("app_full", 2)


# ---- TLS -----------------------------------------------------------------------------------------


def test_tls_on_a_submitted_socket(engine: Engine, upstream: Upstream, front: Front, pki: Pki) -> None:
    app = application(upstream)
    tls = pki.server_tls()
    asked: list[int] = []
    verdict_limits = RateLimitManager("alice", max_open=1)
    limits = RateLimitManager("everybody", max_open=5)

    def decide(peer: lbcore.PeerCertificate, _: str) -> Verdict:
        asked.append(peer.serial)
        if peer.serial == pki.alice.serial:
            return Verdict(True, client="alice", limits=verdict_limits)
        return Verdict(False, reason="unknown_serial")

    acceptor = threading.Thread(
        target=lambda: [
            app.submit_connection(front.listener.accept()[0], limits, tls=tls, authorize=decide, on_done=ends)
            for _ in range(4)
        ]
    )
    ends = Ends()
    acceptor.start()
    port = front.listener.getsockname()[1]
    with TlsClient(port, client_context(pki, pki.alice)) as alice:
        alice.handshake().echo(b"hello")
        assert (verdict_limits.open, limits.open) == (1, 1)
        with TlsClient(port, client_context(pki, pki.alice)) as again:
            assert again.handshake().receive_to_end()[1] is End.CLOSE_NOTIFY
    for identity in (pki.bob, None):
        with TlsClient(port, client_context(pki, identity)) as client:
            try:
                client.handshake()
                assert client.receive_to_end()[1] is not End.CLOSE_NOTIFY
            except (OSError, ssl.SSLError):
                pass
    acceptor.join()
    reasons = sorted(record.reason for record in ends.wait(4))
    assert reasons == ["client_closed", "concurrent", "no_certificate", "unknown_serial"]
    assert asked == [pki.alice.serial, pki.bob.serial]  # the door remembers alice
    assert (verdict_limits.open, limits.open) == (0, 0)


# ---- how it ends ---------------------------------------------------------------------------------


def test_on_done_finds_the_counts_without_it(engine: Engine, upstream: Upstream, front: Front) -> None:
    limits = RateLimitManager("c", max_open=1)
    app = application(upstream)
    seen: list[tuple[int, int, int]] = []
    for number in range(1, 51):
        client, accepted = front.pair()
        with client:
            app.submit_connection(
                accepted, limits,
                on_done=lambda _: seen.append(
                    (limits.open, app.open_connections, app.upstreams[0].in_flight)
                ),
            )  # fmt: skip
            client.sendall(b"x")
            assert read_exactly(client, 1) == b"x"
        wait_until(lambda number=number: len(seen) == number)  # before the next one is counted
    assert set(seen) == {(0, 0, 0)}


def test_an_on_done_that_fails_or_takes_its_time_harms_nobody(
    engine: Engine, upstream: Upstream, front: Front, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(upstream)
    release = threading.Event()
    said: list[str] = []

    def wait(_: lbcore.Record) -> None:
        release.wait(20)

    def stop(_: lbcore.Record) -> None:
        try:
            engine.stop()
        except RuntimeError as error:
            said.append(str(error))

    def leave(_: lbcore.Record) -> None:
        raise SystemExit(3)

    last = Ends()
    for on_done in (wait, stop, leave, last):
        client, accepted = front.pair()
        app.submit_connection(accepted, on_done=on_done)
        client.close()
    wait_until(lambda: app.open_connections == 0)  # the connections do not wait for any of it
    client, accepted = front.pair()
    with client:
        app.submit_connection(accepted)
        client.sendall(b"x")
        assert read_exactly(client, 1) == b"x"
    release.set()
    last.wait(1)
    wait_until(lambda: said and "on_done failed" in caplog.text)  # they may have ended in another order
    assert said == ["engine: cannot be stopped by an authorizer, by on_records or by on_done"]


def test_awaiting_the_end(engine: Engine, upstream: Upstream, front: Front) -> None:
    app = application(upstream)

    async def main() -> None:
        client, accepted = front.pair()
        served = asyncio.create_task(app.serve_connection(accepted, client="tenant"))
        loop = asyncio.get_running_loop()
        client.setblocking(False)
        await loop.sock_sendall(client, b"hello")
        assert await loop.sock_recv(client, 100) == b"hello"
        client.close()
        record = await asyncio.wait_for(served, 10)
        assert (record.client, record.bytes_in) == ("tenant", 5)
        client, accepted = front.pair()
        served = asyncio.create_task(app.serve_connection(accepted))
        await asyncio.sleep(0)
        served.cancel()
        client.setblocking(False)
        await loop.sock_sendall(client, b"goes on")
        assert await loop.sock_recv(client, 100) == b"goes on"
        client.close()

    asyncio.run(main())  # the second one ends after its loop has


def test_stop_tells_everybody(upstream: Upstream, front: Front) -> None:
    engine = Engine(workers=2)
    engine.start()
    app = application(upstream)
    ends = Ends()
    clients = []
    for _ in range(50):
        client, accepted = front.pair()
        clients.append(client)
        app.submit_connection(accepted, on_done=ends)
    engine.stop()
    assert {record.reason for record in ends.wait(50)} == {"drained"}
    for client in clients:
        client.close()


# ---- many ----------------------------------------------------------------------------------------


def submit_all(
    gate: threading.Barrier,
    sockets: list[socket.socket],
    app: Application,
    limits: RateLimitManager,
    ends: Ends,
) -> None:
    gate.wait(10)
    for sock in sockets:
        app.submit_connection(sock, limits, on_done=ends)


def test_two_hundred_at_once_against_fifty_in_twenty_rounds(engine: Engine, keep: Keep, front: Front) -> None:
    app = application(keep(Upstream(hold)), keep(Upstream(hold)))
    for _ in range(20):
        limits = RateLimitManager("c", max_open=50)
        ends = Ends()
        pairs = [front.pair() for _ in range(200)]
        barrier = threading.Barrier(8)

        with ThreadPoolExecutor(8) as pool:
            parts = [(barrier, [theirs for _, theirs in pairs[n::8]], app, limits, ends) for n in range(8)]
            list(pool.map(lambda part: submit_all(*part), parts))
        wait_until(lambda done=ends: len(done.records) == 150)  # type: ignore[misc]
        assert {record.reason for record in ends.records} == {"concurrent"}
        assert limits.open == 50
        for client, _ in pairs:
            reset(client)
        ends.wait(200)
        assert limits.open == 0


@pytest.mark.memory
@pytest.mark.slow
def test_ten_thousand_that_end_badly_leave_nothing(keep: Keep, front: Front) -> None:
    """By a reset, a failed dial, a timeout, a refusal and a stop."""
    engine = Engine(workers=2)
    engine.start()
    limits = RateLimitManager("c", max_open=400)
    full = RateLimitManager("full", max_open=1)
    full.connection_opened()
    good = application(keep(Upstream()))
    dead = Application("dead", [UpstreamServer(keep(Refuser()).address)], passive_failures=0)
    stuck = Application(
        "stuck", [UpstreamServer(keep(Blackhole()).address)], connect_timeout=0.05, passive_failures=0
    )
    ends = Ends()
    before = 0

    def one(number: int) -> None:
        client, accepted = front.pair()
        app = (good, dead, stuck, good)[number % 4]
        app.submit_connection(accepted, full if number % 4 == 3 else limits, on_done=ends)
        if number % 4 == 0:
            reset(client)
        else:
            client.close()

    for number in range(10_000):
        if number % 100 == 0:  # no more than the listener's queue and the descriptors of a small machine
            wait_until(lambda n=number: len(ends.records) >= n - 300, timeout=30)  # type: ignore[misc]
        if number == 2000:
            gc.collect()
            before = anonymous_bytes()
        one(number)
    engine.stop()
    assert len(ends.wait(10_000)) == 10_000
    reasons = {record.reason for record in ends.records}
    assert reasons >= {"concurrent"}
    assert len({record.id for record in ends.records}) == 10_000
    assert (limits.open, full.open) == (0, 1)
    assert [app.open_connections for app in (good, dead, stuck)] == [0, 0, 0]
    assert [server.in_flight for app in (good, dead, stuck) for server in app.upstreams] == [0, 0, 0]
    ends.records.clear()
    gc.collect()
    assert anonymous_bytes() - before < 24 * 1024 * 1024


def test_no_thread_and_no_object_for_each_connection(engine: Engine, keep: Keep, front: Front) -> None:
    app = application(keep(Upstream(sink)))

    def cost(count: int) -> tuple[int, int]:
        clients = []
        for _ in range(count):
            client, accepted = front.pair()
            app.submit_connection(accepted)
            clients.append(client)
        wait_until(lambda: app.upstreams[0].in_flight == count)
        numbers = [client.detach() for client in clients]
        del client, accepted, clients
        gc.collect()
        threads = threading.active_count() - count  # the upstream of the test has one for each
        modules = [str(type(thing).__module__) for thing in gc.get_objects()]
        objects = sum(module.startswith(("lbcore", "socket")) for module in modules)
        for number in numbers:
            os.close(number)
        wait_until(lambda: app.upstreams[0].in_flight == 0)
        return threads, objects

    few, many = cost(10), cost(300)
    assert many[0] <= few[0] + 10  # those of the first ten may still be ending
    assert many[1] <= few[1] + 310  # the test's own upstream keeps a socket each, nothing else does


def test_too_many_doors_is_an_error_that_keeps_the_socket(
    engine: Engine, upstream: Upstream, front: Front, pki: Pki
) -> None:
    app = application(upstream)
    tls = pki.server_tls()
    client, accepted = front.pair()
    with client, accepted:
        for _ in range(1024):
            one, other = front.pair()
            app.submit_connection(other, tls=tls, authorize=lambda *_: Verdict(False, reason="x"))
            one.close()
        with pytest.raises(RuntimeError, match="more than 1024 different"):
            app.submit_connection(accepted, tls=tls, authorize=lambda *_: Verdict(False, reason="x"))
        assert accepted.fileno() >= 0


def test_errno_of_a_bad_number_is_kept(engine: Engine, upstream: Upstream) -> None:
    with pytest.raises(OSError, match="descriptor") as told:
        application(upstream).submit_connection(999_999)
    assert told.value.errno == errno.EBADF
