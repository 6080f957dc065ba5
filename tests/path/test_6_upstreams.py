"""Stage 6, pick: upstreams that come, go, drain, fail and return while connections run."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_to_end
from kit.upstreams import Blackhole, Refuser, Upstream, resetter
from kit.waiting import wait_until

from lbcore import Application, UpstreamServer


@contextmanager
def held(lb: Balancer, count: int) -> Iterator[list[socket.socket]]:
    """So many connections of a plaintext application, all forwarded, one after the other."""
    with ExitStack() as stack:
        sockets = []
        for _ in range(count):
            sock = stack.enter_context(plain(lb.port))
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            sockets.append(sock)
        yield sockets


def in_flight(lb: Balancer) -> list[int]:
    return [server.in_flight for server in lb.app.upstreams]


# ---- least connections ---------------------------------------------------------------------------


def test_who_lost_its_connections_gets_the_next_ones(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Upstream()), keep(Upstream()), plaintext=True)
    with held(lb, 10) as sockets:
        assert in_flight(lb) == [5, 5]
        one = lb.app.upstreams[0].address
        first = {row["source"] for row in lb.engine.connections() if row["upstream"] == one}
        for sock in sockets:
            if "{}:{}".format(*sock.getsockname()) in first:
                sock.close()
        wait_until(lambda: in_flight(lb) == [0, 5], "those of one have ended")
        for expected in range(1, 6):
            with_it = plain(lb.port)
            sockets.append(keep(with_it))
            wait_until(lambda: in_flight(lb) == [expected, 5], "the next one goes there")  # noqa: B023
        with held(lb, 4):
            assert in_flight(lb) == [7, 7]
        for sock in sockets:
            sock.close()


def test_weights_may_change(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Upstream()), keep(Upstream()), plaintext=True)
    lb.app.upstreams[0].weight = 3
    with held(lb, 16):
        assert in_flight(lb) == [12, 4]
        lb.app.upstreams[1].weight = 3
        with held(lb, 8):
            assert in_flight(lb) == [12, 12]
    with pytest.raises(ValueError, match="weight: 1 to 65535"):
        lb.app.upstreams[0].weight = 0


# ---- draining and leaving ------------------------------------------------------------------------


def test_a_drained_upstream_keeps_who_it_has(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Upstream()), keep(Upstream()), plaintext=True)
    drained, other = lb.app.upstreams
    with held(lb, 4) as before:
        drained.drain()
        assert (drained.state, other.state) == ("draining", "up")
        with held(lb, 4):
            assert in_flight(lb) == [2, 6]
        for sock in before:
            sock.sendall(b"y")
            assert sock.recv(1) == b"y"
        drained.resume()
        with held(lb, 4):
            assert in_flight(lb) == [4, 4]


@pytest.mark.parametrize("how", ["drain", "remove", "mark_down"])
def test_its_connections_may_have_to_end(balance: MakeBalancer, keep: Keep, how: str) -> None:
    """After so long, and as an abort: bytes may have been under way."""
    lb = balance(keep(Upstream()), keep(Upstream()), plaintext=True)
    leaving, staying = lb.app.upstreams
    with held(lb, 4) as sockets:
        watch = Stopwatch()
        if how == "remove":
            lb.app.remove_upstream(leaving, end_after=0.5)
        else:
            getattr(leaving, how)(end_after=0.5)
        reason = "upstream_down" if how == "mark_down" else "drained"
        records = lb.records.wait(2, reason=reason)
        assert 0.5 <= watch.seconds < 1.5
        assert {record.upstream for record in records} == {leaving.address}
        assert (leaving.in_flight, staying.in_flight) == (0, 2)
        ends = []
        for sock in sockets:
            sock.settimeout(0.2)
            try:
                ends.append(read_to_end(sock)[1])
            except TimeoutError:
                ends.append(None)
        assert sorted(map(str, ends)) == ["None", "None", "reset", "reset"]


def test_at_once(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Upstream()), keep(Upstream()), plaintext=True)
    with held(lb, 4):
        lb.app.remove_upstream(lb.app.upstreams[0], end_after=0)
        assert len(lb.records.wait(2, timeout=1, reason="drained")) == 2


def test_they_may_stay_after_all(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Upstream()), plaintext=True)
    with held(lb, 2) as sockets:
        lb.app.upstreams[0].drain(end_after=0.4)
        lb.app.upstreams[0].resume()
        sockets[0].settimeout(1)
        with pytest.raises(TimeoutError):  # the time in which it would have ended
            sockets[0].recv(1)
        assert in_flight(lb) == [2]


def test_two_reasons_to_leave_do_not_undo_each_other(balance: MakeBalancer, keep: Keep) -> None:
    """The operator drains it, and checks find it down and up again; or the other way round."""
    lb = balance(keep(Upstream()), keep(Upstream()), plaintext=True)
    one, other = lb.app.upstreams
    with held(lb, 8):
        watch = Stopwatch()
        one.drain(end_after=0.5)
        one.mark_down(end_after=30)
        one.mark_up()
        other.mark_down(end_after=0.5)
        other.drain(end_after=30)
        other.resume()
        assert len(lb.records.wait(4, reason="drained")) == 4
        assert len(lb.records.wait(4, reason="upstream_down")) == 4
        assert 0.5 <= watch.seconds < 1.5


def test_one_that_is_removed_and_added_has_no_deadline_from_before(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Upstream()), keep(Upstream()), plaintext=True)
    one, other = lb.app.upstreams
    lb.app.remove_upstream(one, end_after=0)
    lb.app.add_upstream(one)
    other.mark_down()
    with held(lb, 1) as sockets:
        one.mark_down()
        sockets[0].settimeout(0.3)
        with pytest.raises(TimeoutError):  # it stays
            sockets[0].recv(1)


def test_marks_that_are_alike_hide_nobody(balance: MakeBalancer, keep: Keep) -> None:
    """A mark is 16 bits of a number that counts on; a pool has them all different."""
    refuser, good = keep(Refuser()), keep(Upstream())
    lb = balance(refuser, plaintext=True, app={"passive_failures": 0})
    number = lb.app.upstreams[0].id
    while True:
        late = UpstreamServer(good.address)
        if late.id % 65536 == number % 65536:
            break
    lb.app.add_upstream(late)
    with held(lb, 4):
        assert late.in_flight == 4


def test_a_pool_that_shrinks_keeps_no_more_out_than_it_may(balance: MakeBalancer, keep: Keep) -> None:
    refusers = [keep(Refuser()), keep(Refuser())]
    lb = balance(*refusers, keep(Upstream()), keep(Upstream()), plaintext=True,
                 app={"passive_failures": 1, "passive_eject": 60.0, "connect_attempts": 4})  # fmt: skip
    with held(lb, 6):
        assert [server.state for server in lb.app.upstreams] == ["quarantined"] * 2 + ["up"] * 2
        revived = [keep(refuser.revive()) for refuser in refusers]
        for server in lb.app.upstreams[2:]:
            lb.app.remove_upstream(server)
        with held(lb, 4):
            assert sum(upstream.accepted for upstream in revived) == 4


def test_who_is_down_counts_among_those_that_are_left_out(balance: MakeBalancer, keep: Keep) -> None:
    """A check has found one of two; the other one is left, whatever it does."""
    refuser = keep(Refuser())
    lb = balance(refuser, keep(Upstream()), plaintext=True, app={"passive_failures": 1, "max_ejected": 0.5})
    refusing, down = lb.app.upstreams
    down.mark_down()
    for number in range(3):
        with plain(lb.port) as client:
            client.recv(1)
        assert lb.records.wait(number + 1)[-1].reason == "connect_failed"
    assert (refusing.state, refusing.errors) == ("up", 3)


def test_a_server_is_claimed_once(keep: Keep) -> None:
    """Also by many that ask at the same moment."""
    applications = [Application(f"app-{number}", dynamic=True) for number in range(8)]
    for _ in range(50):
        server = UpstreamServer("127.0.0.1:1")
        took = []
        start = threading.Barrier(len(applications))

        def claim(app: Application) -> None:
            start.wait()  # noqa: B023
            with contextlib.suppress(ValueError):
                app.add_upstream(server)  # noqa: B023
                took.append(app)  # noqa: B023

        threads = [threading.Thread(target=claim, args=(app,)) for app in applications]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (owner,) = took
        owner.remove_upstream(server)


def test_servers_change_while_ports_open(balance: MakeBalancer, keep: Keep) -> None:
    """Each of the two has to wait for the workers, and neither for the other for ever."""
    lb = balance(keep(Upstream()), plaintext=True)
    spare = UpstreamServer("127.0.0.1:1")
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            lb.app.add_upstream(spare)
            lb.app.remove_upstream(spare)

    changing = threading.Thread(target=change, daemon=True)
    changing.start()
    for _ in range(200):
        lb.engine.listen(lb.app, "127.0.0.1:0", plaintext=True).close()
    over.set()
    changing.join(10)
    assert not changing.is_alive()


def test_who_has_to_leave_one_may_stay_with_the_next(balance: MakeBalancer, keep: Keep) -> None:
    """It goes down while it is dialled, so the connection is another one's when its time is over."""
    lb = balance(keep(Blackhole()), keep(Upstream()), plaintext=True, app={"connect_timeout": 0.5})
    silent, other = lb.app.upstreams
    silent.weight = 100
    with plain(lb.port) as client:
        wait_until(lambda: silent.in_flight == 1, "it is dialled")
        silent.mark_down(end_after=0)
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert (silent.in_flight, other.in_flight) == (0, 1)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):  # and it stays
            client.recv(1)
    assert lb.record().reason == "client_closed"


def test_upstreams_come_and_go_under_load(balance: MakeBalancer, keep: Keep) -> None:
    """No connection meets an upstream that has left, and none is refused."""
    servers = [keep(Upstream()) for _ in range(4)]
    lb = balance(servers[0], plaintext=True, app={"dynamic": True})
    stop = threading.Event()
    problems: list[BaseException] = []

    def clients() -> None:
        try:
            while not stop.is_set():
                with plain(lb.port) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=clients) for _ in range(4)]
    for thread in threads:
        thread.start()

    def changed() -> bool:
        for server in servers[1:]:
            lb.app.add_upstream(UpstreamServer(server.address))
        for gone in lb.app.upstreams[1:]:
            lb.app.remove_upstream(gone)
        return all(server.accepted > 20 for server in servers)

    wait_until(changed, "each has had connections")
    stop.set()
    for thread in threads:
        thread.join(10)
    assert problems == []
    assert {record.reason for record in lb.records.wait(84)} == {"client_closed"}


def test_the_last_one(balance: MakeBalancer, keep: Keep, upstream: Upstream) -> None:
    lb = balance(upstream, plaintext=True)
    with pytest.raises(ValueError, match="the last one"):
        lb.app.remove_upstream(lb.app.upstreams[0])
    empty = lb.add("empty", upstream, plaintext=True, dynamic=True)
    server = lb.applications[1].upstreams[0]
    lb.applications[1].remove_upstream(server)
    with plain(empty.port) as sock:
        assert read_to_end(sock) == (b"", End.FIN)
    assert lb.record(app="empty").reason == "no_upstream"
    lb.applications[1].add_upstream(server)
    with plain(empty.port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_what_makes_no_sense_changes_nothing(upstream: Upstream) -> None:
    one = UpstreamServer(upstream.address)
    app = Application("web", [one])
    with pytest.raises(ValueError, match="the same address"):
        app.add_upstream(UpstreamServer(upstream.address))
    with pytest.raises(ValueError, match="belongs to one Application"):
        Application("other", [one])
    with pytest.raises(ValueError, match="not one of this application's"):
        app.remove_upstream(UpstreamServer("127.0.0.1:1"))
    for end_after in (-1, "1s", True):
        with pytest.raises((TypeError, ValueError), match="end_after"):
            one.drain(end_after)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="upstreams: needs at least one"):
        Application("empty", [])
    with pytest.raises(RuntimeError, match="belongs to no Application"):
        UpstreamServer("127.0.0.1:1").mark_up()
    assert (app.upstreams, one.state) == ((one,), "up")


# ---- health --------------------------------------------------------------------------------------


def test_resets_at_once_put_an_upstream_out(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """It accepts connections and resets them without a word."""
    app = {"passive_failures": 3, "passive_eject": 60.0}
    lb = balance(keep(Upstream(resetter())), keep(Upstream()), app=app)
    broken, good = lb.app.upstreams
    while broken.state == "up":
        with connect(pki, lb.port) as client:
            client.send(b"x")
            client.receive_some(1)
    assert broken.errors == 3
    for _ in range(6):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
    assert (broken.state, broken.quarantines, good.state) == ("quarantined", 1, "up")


def test_one_client_finds_out_and_none_is_lost(balance: MakeBalancer, keep: Keep) -> None:
    """The others do not wait for it, and a probe that fails goes elsewhere with its client."""
    dead, alive = keep(Refuser()), keep(Upstream())
    lb = balance(dead, alive, plaintext=True, app={"passive_failures": 1, "passive_eject": 0.3})
    server = lb.app.upstreams[0]
    with held(lb, 4):
        wait_until(lambda: server.quarantines == 1)
        wait_until(lambda: not server.ejected, "its time is over")
        with held(lb, 10):
            assert server.quarantines == 2
            assert server.errors == 2
            keep(dead.revive())
            wait_until(lambda: not server.ejected, "its time is over again")
            with held(lb, 20):
                assert server.state == "up"
                assert server.in_flight > 10
    assert {record.reason for record in lb.records.wait(34)} == {"client_closed"}


def test_checks_decide_when_asked(balance: MakeBalancer, keep: Keep) -> None:
    dead = keep(Refuser())
    lb = balance(dead, keep(Upstream()), plaintext=True, app={"passive_failures": 1, "passive_eject": 60.0})
    server = lb.app.upstreams[0]
    server.mark_down()
    with held(lb, 4):
        assert (server.state, server.errors) == ("down", 0)
    server.mark_up()
    with held(lb, 2):
        wait_until(lambda: server.state == "quarantined")
        keep(dead.revive())
        server.mark_up()
        assert server.state == "up"
        with held(lb, 2):
            assert server.in_flight == 2


def test_a_check_outweighs_the_dial_that_was_to_find_out(balance: MakeBalancer, keep: Keep) -> None:
    """It began before the check: when it fails, that is one failure like any other."""
    hole = keep(Blackhole())
    app = {"passive_failures": 3, "passive_eject": 0.1, "connect_timeout": 0.5, "connect_attempts": 2}
    lb = balance(hole, keep(Upstream()), plaintext=True, app=app)
    server = lb.app.upstreams[0]
    with held(lb, 0) as sockets:
        sockets += [keep(plain(lb.port)) for _ in range(6)]
        wait_until(lambda: server.quarantines == 1 and not server.ejected, "its time is over")
        while server.in_flight == 0:
            sockets.append(keep(plain(lb.port)))
            wait_until(lambda: lb.app.open_connections == len(sockets))
        server.mark_up()
        errors = server.errors
        wait_until(lambda: server.errors > errors, "the dial has failed")
        assert (server.state, server.quarantines) == ("up", 1)


def test_all_down_is_refused_at_once(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Upstream()), keep(Upstream()))
    for server in lb.app.upstreams:
        server.mark_down()
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record()
    assert (record.reason, record.stage, record.attempts) == ("no_upstream", "pick", 0)
    lb.app.upstreams[1].mark_up()
    with connect(pki, lb.port) as client:
        client.echo(b"x")


# ---- affinity ------------------------------------------------------------------------------------


def test_a_client_keeps_its_upstream(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    servers = [keep(Upstream()) for _ in range(4)]
    lb = balance(*servers, app={"affinity": "client"})
    clients = [pki.alice, *(pki.client() for _ in range(7))]
    for client in clients:
        lb.policy.allow(client, "web")
    for _ in range(3):
        for identity in clients:
            with connect(pki, lb.port, identity) as client:
                client.echo(b"x")
    seen: dict[str | None, set[str | None]] = {}
    for record in lb.records.wait(24):
        seen.setdefault(record.client, set()).add(record.upstream)
    assert all(len(upstreams) == 1 for upstreams in seen.values())
    assert len({upstream for upstreams in seen.values() for upstream in upstreams}) > 1
    [alices] = seen["alice"]
    [server] = [server for server in lb.app.upstreams if server.address == alices]
    server.mark_down()
    with connect(pki, lb.port) as client:
        client.echo(b"elsewhere")
    lb.records.wait(4, client="alice")  # or that of another worker might come first
    server.mark_up()
    with connect(pki, lb.port) as client:
        client.echo(b"back")
    assert [record.upstream == alices for record in lb.records.wait(5, client="alice")[3:]] == [False, True]


# ---- unix sockets --------------------------------------------------------------------------------


@pytest.fixture
def unix(tmp_path: Path, keep: Keep) -> Upstream:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "app.sock"))
    server: Upstream = keep(Upstream(listener=listener))
    return server


def test_unix_sockets(balance: MakeBalancer, unix: Upstream, pki: Pki) -> None:
    lb = balance(unix)
    plaintext = lb.add("raw", unix, plaintext=True)
    data = bytes(range(256)) * 4096
    with connect(pki, lb.port) as client, plain(plaintext.port) as sock:
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += sock.recv(1 << 16)
        sender.join(10)
        assert received == data
        client.echo(data[:100_000])
        client.send_close_notify()
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    assert lb.record(app="web").upstream == unix.address


def test_a_unix_socket_that_nobody_has(balance: MakeBalancer, tmp_path: Path) -> None:
    lb = balance(f"unix:{tmp_path}/none", plaintext=True)
    with plain(lb.port) as sock:
        assert read_to_end(sock)[1] is End.FIN
    assert lb.record().reason == "connect_failed"


@pytest.mark.parametrize("fault", ["is gone", "has no listener", "has a full queue"])
def test_a_unix_socket_that_takes_nobody(
    balance: MakeBalancer, keep: Keep, tmp_path: Path, fault: str
) -> None:
    """connect(2) says so at once, and the next upstream is tried."""
    path = tmp_path / "app.sock"
    listener = keep(socket.socket(socket.AF_UNIX))
    problem = errno.ENOENT
    if fault != "is gone":
        listener.bind(str(path))
        problem = errno.ECONNREFUSED
    if fault == "has a full queue":
        listener.listen(0)
        problem = errno.EAGAIN
        filler = keep(socket.socket(socket.AF_UNIX))
        filler.connect(str(path))
    lb = balance(f"unix:{path}", keep(Upstream()), plaintext=True, app={"passive_failures": 0})
    for _ in range(2):
        with held(lb, 1):
            pass
        lb.wait_quiet()
    assert sorted(record.attempts for record in lb.records.wait(2, event="conn.close")) == [1, 2]
    lb.app.upstreams[1].drain()
    with plain(lb.port) as sock:
        assert read_to_end(sock) == (b"", End.FIN)
    record = lb.record(event="conn.deny")
    assert (record.stage, record.reason, record.errno) == ("dial", "connect_failed", problem)
    assert [server.errors for server in lb.app.upstreams] == [2, 0]


@pytest.mark.parametrize("address", ["unix:relative", "unix:", "unix:/" + "x" * 107, "unix:/a\0b"])
def test_what_is_no_unix_address(address: str) -> None:
    with pytest.raises(ValueError, match="address: "):
        UpstreamServer(address)
