"""The native load: what it counts, how it times, and that nothing wrong gets past it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.sockets import read_exactly, reset
from kit.upstreams import Session, Upstream, echo
from kit.waiting import PATIENCE, wait_until

from bench import certificates
from bench.load import (
    Crowd,
    Driver,
    Histogram,
    Hold,
    Load,
    LoadFailed,
    Mixed,
    NewConnections,
    OpenEchoes,
    Storm,
    Target,
    download,
    message,
    percentiles,
    together,
    upload,
)
from bench.proxies import Job, LoadBalancer
from bench.upstream import PATTERN, Upstreams
from bench.works import WORKS, Scale, measure

ECHO = message(64)
TRANSFER = 1 << 25
CPUS = sorted(os.sched_getaffinity(0))


@pytest.fixture
def upstreams() -> Iterator[Upstreams]:
    with Upstreams() as started:
        yield started


def echoing(port: int, clients: list[tuple[bytes, bytes, bytes] | None] | None = None) -> Load:
    return Load(port, clients or [None], ECHO, answer=ECHO)


def units(driver: Driver) -> int:
    """What a driver does, from its beginning to its end."""
    with contextlib.closing(driver):
        driver.prepare()
        done = driver.work().units
        driver.finish()
        return done


# ---- the histogram -------------------------------------------------------------------------------


@given(st.lists(st.integers(0, (1 << 40) - 1), min_size=1), st.floats(0, 1))
def test_a_percentile_is_never_too_good_and_at_most_a_hundredth_too_long(
    times: list[int], share: float
) -> None:
    histogram = Histogram()
    for latency in times:
        histogram.add(latency)
    exact = next(latency for rank, latency in enumerate(sorted(times), 1) if rank >= share * len(times))
    assert exact <= histogram.percentile(share) <= exact * 1.01
    assert len(histogram) == len(times)
    assert histogram.longest == max(times)


def test_what_is_longer_than_all_buckets_is_counted_too() -> None:
    histogram = Histogram()
    histogram.add(5)
    histogram.add((1 << 64) - 1)
    assert histogram.percentile(0.5) == 5
    assert histogram.percentile(1) == (1 << 64) - 1


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no latencies"):
        Histogram().percentile(0.5)


def test_percentiles_are_told_in_microseconds() -> None:
    histogram = Histogram()
    for _ in range(1000):
        histogram.add(100_000)
    assert percentiles(histogram) == {"p50": 100, "p99": 100, "p99.9": 100}


# ---- what is counted -----------------------------------------------------------------------------


def test_each_new_connection_is_one_of_the_upstreams() -> None:
    with Upstream() as upstream, contextlib.closing(echoing(upstream.port)) as load:
        counts: list[int] = []

        def renewed() -> bool:
            counts.append(load.renew(3, 0.05))
            return counts[-1] > 3

        wait_until(renewed, "one of three connections is followed by another")
        load.end()
        assert upstream.accepted == sum(counts)
        assert {session.wait_end() for session in upstream.sessions} == {"fin"}


def test_open_connections_stay_and_end_in_order() -> None:
    with Upstream() as upstream, contextlib.closing(echoing(upstream.port)) as load:
        load.open(10)
        load.open(2)
        assert load.repeat(0) == 12
        wait_until(lambda: load.repeat(0.05) > 12, "an echo is followed by another")
        assert upstream.accepted == 12
        assert [session.ended for session in upstream.sessions] == [None] * 12
        load.end()
        assert {session.wait_end() for session in upstream.sessions} == {"fin"}


def test_each_client_has_an_address_of_its_own() -> None:
    with Upstream() as upstream, contextlib.closing(echoing(upstream.port, [None] * 3)) as load:
        load.open(6)
        peers = sorted(session.sock.getpeername()[0] for session in upstream.sessions)
        assert peers == ["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.3"]
        load.end()


def test_the_upstreams_do_every_job_one_after_the_other(upstreams: Upstreams) -> None:
    sock = socket.create_connection(("127.0.0.1", upstreams.ports[1]))
    with sock:
        for size in (1, 100, len(PATTERN) + 5):
            sock.sendall(b"source %d\n" % size)
            assert read_exactly(sock, size) == (PATTERN * 2)[:size]
            sock.sendall(b"sink %d\n" % size + b"x" * size)
            assert read_exactly(sock, len(str(size)) + 1) == b"%d\n" % size
        for byte in b"echo in pieces":
            sock.sendall(bytes([byte]))
        sock.sendall(b"\n" + b"y" * 300_000)
        assert read_exactly(sock, 300_015) == b"echo in pieces\n" + b"y" * 300_000


@pytest.mark.parametrize("line", [b"swallow 5\n", b"sink 5\nsix of it", b"s" * 100])
def test_the_upstreams_hang_up_on_what_they_do_not_know(upstreams: Upstreams, line: bytes) -> None:
    with socket.create_connection(("127.0.0.1", upstreams.ports[0])) as sock:
        sock.sendall(line)
        with contextlib.suppress(ConnectionResetError):
            assert sock.recv(10) == b""


def test_drivers_against_the_upstreams(upstreams: Upstreams) -> None:
    targets = [Target(upstreams.ports[0])] * 2
    assert units(NewConnections(targets, 2, 0.0)) == 2
    assert units(OpenEchoes(targets, 4, 0.0, 1024)) == 4
    assert units(Hold(targets, 3, 20)) == 20
    for bulk in (download(targets, 2, 0.0, 0.0), upload(targets, 2, 0.0, 0.0)):
        assert units(bulk) == 2 * TRANSFER
    crowd = Crowd([OpenEchoes(targets, connections, 0.0, 1024) for connections in (4, 3)])
    assert units(crowd) == 7


def test_an_idle_connection_that_was_dropped_meanwhile_is_a_failure() -> None:
    drop = threading.Event()

    def once(session: Session) -> None:
        session.sock.sendall(read_exactly(session.sock, 64))
        drop.wait(PATIENCE)

    with Upstream(once) as upstream, contextlib.closing(Hold([Target(upstream.port)], 2, 3)) as hold:
        hold.prepare()
        assert hold.work().units == 3
        drop.set()
        with pytest.raises(LoadFailed):
            hold.finish()


def test_what_is_transferred_beside_echoes_is_counted(upstreams: Upstreams) -> None:
    mixed = Mixed([Target(upstreams.ports[0])], echoes=2, rate=100.0, downloads=2, warm_up=0.0, seconds=0.1)
    with contextlib.closing(mixed):
        mixed.prepare()
        done = mixed.work()
        mixed.finish()
    assert done.beside >= 2 * TRANSFER
    assert done.units == 10


def measured_with_a_dead_upstream(failure: Exception | None) -> None:
    with Upstreams() as upstreams:
        process = upstreams._processes[-1]
        process.kill()
        process.join()
        if failure is not None:
            raise failure


def test_an_upstream_that_has_died_is_told() -> None:
    with pytest.raises(LoadFailed, match="an upstream of the bench ended by itself"):
        measured_with_a_dead_upstream(None)


def test_an_upstream_that_has_died_is_told_with_what_came_of_it() -> None:
    with pytest.raises(ConnectionError) as failed:
        measured_with_a_dead_upstream(ConnectionError("a peer is blamed"))
    assert "an upstream of the bench ended by itself" in failed.value.__notes__[0]


def test_a_failure_on_one_thread_is_told_when_all_are_done() -> None:
    done = threading.Event()

    def failing() -> None:
        raise LoadFailed("a wrong byte")

    with pytest.raises(LoadFailed, match="a wrong byte"):
        together([failing, done.set])
    assert done.is_set()


# ---- what is timed -------------------------------------------------------------------------------


def test_a_stall_counts_for_all_that_were_due_in_it() -> None:
    """0.3 s in which 60 of 100 become due: the closed loop would have seen one slow echo."""

    def stall_once(session: Session) -> None:
        session.sock.sendall(read_exactly(session.sock, 64))  # it was opened
        first = read_exactly(session.sock, 64)
        session.released.wait(0.3)
        session.sock.sendall(first)
        echo(session)

    with Upstream(stall_once) as upstream, contextlib.closing(echoing(upstream.port)) as load:
        load.open(1)
        histogram = load.schedule(200, 0.5)
        load.end()
    assert len(histogram) == 100
    assert 0.3e9 <= histogram.longest < 5e9
    assert histogram.percentile(0.9) > 0.2e9
    assert histogram.percentile(0.6) > 0.05e9


def test_one_connection_that_stalls_does_not_hold_up_the_others() -> None:
    """One of ten is answered when the others have had all of theirs: waiting for it would never end."""
    others = threading.Semaphore(0)

    def stall_second(session: Session) -> None:
        session.sock.sendall(read_exactly(session.sock, 64))  # it was opened
        first = read_exactly(session.sock, 64)
        if upstream.sessions.index(session) == 1:
            for _ in range(9 * 6):
                assert others.acquire(timeout=PATIENCE)
            session.sock.sendall(first)
        else:
            session.sock.sendall(first)
            others.release()
            for _ in range(5):
                session.sock.sendall(read_exactly(session.sock, 64))
                others.release()
        echo(session)

    with Upstream(stall_second) as upstream, contextlib.closing(echoing(upstream.port)) as load:
        load.open(10)
        histogram = load.schedule(200, 0.3)
        load.end()
    assert len(histogram) == 60
    assert histogram.longest >= 0.28e9  # it was due after 5 ms, the last of the others after 295


def test_a_schedule_lasts_as_long_as_it_says() -> None:
    with Upstream() as upstream, contextlib.closing(echoing(upstream.port)) as load:
        load.open(3)
        began = time.monotonic()
        histogram = load.schedule(100, 0.25)
        assert time.monotonic() - began >= 0.24  # the last of 25 is due then
        load.end()
    assert len(histogram) == 25


# ---- what goes wrong -----------------------------------------------------------------------------


def answers(data: bytes) -> Callable[[Session], None]:
    """Answers the first request so, and ends."""

    def run(session: Session) -> None:
        read_exactly(session.sock, 64)
        session.sock.sendall(data)

    return run


def resets(session: Session) -> None:
    read_exactly(session.sock, 64)
    reset(session.sock)


def test_a_wrong_byte_is_noticed_wherever_it_is() -> None:
    for position in (0, 31, 63):
        wrong = bytearray(ECHO)
        wrong[position] ^= 1
        with (
            Upstream(answers(bytes(wrong))) as upstream,
            contextlib.closing(echoing(upstream.port)) as load,
            pytest.raises(LoadFailed, match="other bytes than were asked for, after 64 bytes"),
        ):
            load.renew(1, 0.1)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (answers(ECHO[:10]), "the connection was ended, after 64 bytes of its request and 10 of"),
        (answers(b""), "the connection was ended, .* and 0 of"),
        (answers(ECHO + b"!"), "more bytes than were asked for"),
        (resets, "receiving: Connection reset by peer"),
    ],
    ids=["short", "none", "long", "reset"],
)
def test_an_answer_that_is_not_one_ends_the_run(script: Callable[[Session], None], words: str) -> None:
    with (
        Upstream(script) as upstream,
        contextlib.closing(echoing(upstream.port)) as load,
        pytest.raises(LoadFailed, match=words),
    ):
        load.renew(1, 0.1)


def test_an_open_connection_that_is_dropped_is_noticed() -> None:
    def once(session: Session) -> None:
        session.sock.sendall(read_exactly(session.sock, 64))

    with Upstream(once) as upstream, contextlib.closing(echoing(upstream.port)) as load:
        load.open(1)
        with pytest.raises(LoadFailed, match="connection 0 of client 0: "):
            load.repeat(5)
        with pytest.raises(LoadFailed):
            load.end()


def test_a_transfer_that_ends_early_is_noticed() -> None:
    def half(session: Session) -> None:
        session.sock.recv(100)
        session.sock.sendall(bytes(1 << 20))

    with (
        Upstream(half) as upstream,
        contextlib.closing(download([Target(upstream.port)], 1, 0.0, 0.1)) as driver,
        pytest.raises(LoadFailed, match=f"the connection was ended, .* and {1 << 20} of the answer"),
    ):
        driver.prepare()


def test_a_port_that_is_closed_is_named(made: certificates.Certificates) -> None:
    for client in (None, Target(1, made.clients[0], made.ca).material()):
        with (
            contextlib.closing(echoing(1, [client])) as load,
            pytest.raises(LoadFailed, match=r"client 0: .*: Connection refused"),
        ):
            load.refused(1, 0.1)


def test_more_connections_than_there_is_room_for_are_an_error() -> None:
    with contextlib.closing(Load(1, [None], ECHO, answer=ECHO, most=2)) as load:
        with pytest.raises(ValueError, match="at most 2"):
            load.open(3)
        load.close()
        with pytest.raises(ValueError, match="closed"):
            load.open(1)


def test_a_client_without_a_ca_is_an_error(made: certificates.Certificates) -> None:
    with pytest.raises(ValueError, match="needs a CA"):
        Target(1, made.clients[0]).material()


# ---- a storm -------------------------------------------------------------------------------------


def test_a_storm_counts_whoever_is_refused() -> None:
    """Two clients may have one connection each, and are then refused in all ways there are."""

    def refuse(session: Session) -> None:
        number = upstream.sessions.index(session)
        if number < 2:
            echo(session)
        elif number % 2:
            reset(session.sock)

    with Upstream(refuse) as upstream:
        storm = Storm([Target(upstream.port)] * 2, 1, 0.0)
        with contextlib.closing(storm):
            storm.prepare()
            before = upstream.accepted
            refused = storm.work().units
            assert upstream.accepted - before == refused == 8  # four attempts of each
            storm.finish()


def test_a_storm_that_is_let_in_is_a_failure() -> None:
    with (
        Upstream() as upstream,
        contextlib.closing(Storm([Target(upstream.port)] * 2, 1, 0.1)) as storm,
        pytest.raises(LoadFailed, match="connections beyond a client's limit were let in, 0 refused"),
    ):
        storm.prepare()


def test_a_single_one_that_is_let_in_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with Upstream() as upstream, contextlib.closing(Storm([Target(upstream.port)], 1, 0.1)) as storm:
        monkeypatch.setattr(storm, "_storming", SimpleNamespace(refused=lambda at_once, seconds: (5000, 1)))
        with pytest.raises(LoadFailed, match=r"^1 connections .* were let in, 5000 refused"):
            storm.work()


def test_an_answer_is_counted_or_compared() -> None:
    with pytest.raises(ValueError, match="not both"):
        Load(1, [None], ECHO, download=10, answer=ECHO)


# ---- TLS -----------------------------------------------------------------------------------------


def server(
    made: certificates.Certificates, talk: Callable[[ssl.SSLSocket], None]
) -> Callable[[Session], None]:
    """A TLS server that requires a client's certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.server.cert, made.server.key)
    context.load_verify_locations(made.ca)
    context.verify_mode = ssl.CERT_REQUIRED

    def run(session: Session) -> None:
        session.sock = context.wrap_socket(session.sock, server_side=True)
        talk(session.sock)

    return run


def test_tls_ends_with_close_notify_on_both_sides(made: certificates.Certificates) -> None:
    seen = []

    def talk(tls: ssl.SSLSocket) -> None:
        tls.sendall(read_exactly(tls, 64))
        assert tls.recv(1) == b""  # OpenSSL answers so for a close_notify only, else it raises
        seen.append(tls.getpeercert())
        tls.unwrap()

    client = Target(1, made.clients[0], made.ca).material()
    with (
        Upstream(server(made, talk)) as upstream,
        contextlib.closing(echoing(upstream.port, [client])) as load,
    ):
        assert load.renew(1, 0.05) == len(seen) >= 1
        assert None not in seen
        load.end()


def test_after_our_end_a_fin_will_do(made: certificates.Certificates) -> None:
    """nginx sends no close_notify to whoever has sent one."""

    def talk(tls: ssl.SSLSocket) -> None:
        tls.sendall(read_exactly(tls, 64))
        assert tls.recv(1) == b""

    client = Target(1, made.clients[0], made.ca).material()
    with (
        Upstream(server(made, talk)) as upstream,
        contextlib.closing(echoing(upstream.port, [client])) as load,
    ):
        assert load.renew(1, 0.05) == upstream.accepted >= 1
        load.end()


@pytest.mark.parametrize("orderly", [True, False])
def test_tls_that_is_cut_off_is_noticed(made: certificates.Certificates, orderly: bool) -> None:
    def talk(tls: ssl.SSLSocket) -> None:
        read_exactly(tls, 64)
        if orderly:
            with contextlib.suppress(OSError):
                tls.unwrap()

    client = Target(1, made.clients[0], made.ca).material()
    words = "the connection was ended" if orderly else "cut off without close_notify"
    with (
        Upstream(server(made, talk)) as upstream,
        contextlib.closing(echoing(upstream.port, [client])) as load,
        pytest.raises(LoadFailed, match=words),
    ):
        load.renew(1, 0.1)


def test_a_server_that_refuses_the_handshake_is_noticed(made: certificates.Certificates) -> None:
    def alert(session: Session) -> None:
        session.sock.recv(1000)
        session.sock.sendall(bytes.fromhex("15 0303 0002 02 28"))  # fatal, handshake_failure
        session.collect()

    client = Target(1, made.clients[0], made.ca).material()
    with (
        Upstream(alert) as upstream,
        contextlib.closing(echoing(upstream.port, [client])) as load,
        pytest.raises(LoadFailed, match="shaking hands: S2N_ERR_ALERT"),
    ):
        load.renew(1, 0.1)


def test_a_certificate_that_is_none_is_named() -> None:
    with pytest.raises(LoadFailed, match="TLS of the load: "):
        echoing(1, [(b"no certificate", b"no key", b"no CA")])


# ---- through this project ------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["tls-new", "tls-up", "tls-idle", "tls-storm", "tls-mixed", "tcp-storm"])
def test_a_work_is_measured(
    key: str, made: certificates.Certificates, upstreams: Upstreams, tmp_path: Path
) -> None:
    work = next(work for work in WORKS if work.key == key)
    scale = Scale(seconds=0.2, idle=40, idle_before=10)
    sample = measure(work, LoadBalancer(), Job(made, upstreams.ports), scale, tmp_path, CPUS[:1])
    if work.memory:
        assert sample.units == scale.idle
    else:
        assert sample.units > 0
        assert sample.seconds >= scale.seconds
    assert sample.value > 0
    assert sample.busy > 0
    assert (sample.latency is not None) == (work.reads == "latency")
