"""Stage 9, close: everything is given back, once, and one record tells the story."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import TlsClient, client_context, connect, plain
from kit.fixtures import Keep, MakeBalancer, Options
from kit.leaks import core_threads
from kit.pki import Pki
from kit.racing import workers_held_back
from kit.sockets import End, read_to_end, reset
from kit.upstreams import Refuser, Session, Upstream, hold, sink, source
from kit.waiting import wait_until

import lbcore
from lbcore import RateLimitManager

ENDS_AT_ONCE = 20  # connections that end in one go
END_ROUNDS = int(os.environ.get("LBCORE_CLOSE_ROUNDS", "1"))


def forwarding(lb: Balancer, pki: Pki) -> TlsClient:
    """A client whose connection is past every earlier stage."""
    client = connect(pki, lb.port)
    lb.wait_open(1)
    return client


# ---- records -------------------------------------------------------------------------------------


def test_the_record_of_a_connection(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream())
    lb = balance(upstream)
    started = time.time()
    with connect(pki, lb.port) as client:
        client.echo(b"12345")
        source_address = client.source
    record = lb.record()
    varying: Options = {"id": "", "time": 0.0, "cipher": "", "handshake_ms": 0, "connect_ms": 0}
    varying["duration_ms"] = 0
    assert record._replace(**varying) == lbcore.Record(
        event="conn.close",
        id="",
        time=0.0,
        app="web",
        source=source_address,
        stage="forward",
        reason="client_closed",
        client="alice",
        serial=pki.alice.serial,
        certificate=None,
        claimed=False,
        scope=None,
        waited_ms=None,
        would_deny=None,
        tls="TLSv1.3",
        cipher="",
        tls_error=None,
        upstream=upstream.address,
        attempts=1,
        handshake_ms=0,
        connect_ms=0,
        duration_ms=0,
        bytes_in=5,
        bytes_out=5,
        errno=0,
    )
    assert started - 1 <= record.time <= time.time() + 1
    assert 0 < record.handshake_ms <= record.duration_ms
    assert record.connect_ms > 0


def test_a_plaintext_record_claims_nothing(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream, plaintext=True)
    with plain(lb.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
    record = lb.record()
    assert (record.client, record.serial, record.tls, record.cipher) == (None, None, None, None)
    assert (record.handshake_ms, record.reason) == (None, "client_closed")


def test_one_record_each_and_no_id_twice(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    for _ in range(50):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        plain(lb.port).close()
    lb.wait_quiet()
    lb.engine.stop()
    records = lb.records.all()
    assert len(records) == 100
    assert len({record.id for record in records}) == 100
    assert lb.engine.stats()["log_dropped"] == 0


def test_counters_add_up(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    for _ in range(3):
        with connect(pki, lb.port) as client:
            client.echo(b"12345678")
    with TlsClient(lb.port, client_context(pki, None)) as client:
        client.handshake()
        client.receive_to_end()
    lb.wait_quiet()
    stats = lb.engine.stats()["applications"]["web"]
    assert (stats["accepted"], stats["forwarded"], stats["open"]) == (4, 3, 0)
    assert (stats["bytes_in"], stats["bytes_out"]) == (24, 24)
    assert stats["ended"] == {"client_closed": 3, "no_certificate": 1}


def test_who_ended_first_is_the_reason(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Upstream(source(b"bye"))))
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"bye", End.CLOSE_NOTIFY)
    assert lb.record().reason == "upstream_closed"


def test_a_consumer_of_records_that_fails_harms_nobody(
    pki: Pki, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(batch: list[lbcore.Record]) -> None:
        raise RuntimeError("the disk is full")

    with Balancer(pki, upstream, engine={"on_records": fail}) as lb:
        for _ in range(3):
            with connect(pki, lb.port) as client:
                client.echo(b"x")
            lb.wait_quiet()
        wait_until(lambda: "the disk is full" in caplog.text, "it is logged")


def test_lines_of_the_core_and_of_python_come_in_one_order(pki: Pki, upstream: Upstream) -> None:
    """What was forwarded is the core's to write, what was refused Python's, in whatever order."""
    written: list[bytes] = []

    def line(record: lbcore.Record) -> str:
        return json.dumps({"event": record.event, "id": record.id})

    options = {"workers": 1, "on_records": None}
    options["record_lines"] = lbcore.RecordLines(written.append, "lb-1", line)
    expected = []
    with Balancer(pki, upstream, engine=options) as lb:
        for forwarded in (True, False, False, True, True, False):
            if forwarded:
                with connect(pki, lb.port) as client:
                    client.echo(b"x")
            else:
                plain(lb.port).close()
            lb.wait_quiet()
            expected.append("conn.close" if forwarded else "conn.deny")
        wait_until(lambda: b"".join(written).count(b"\n") == len(expected), "all are told")
    told = [json.loads(text) for text in b"".join(written).splitlines()]
    assert [found["event"] for found in told] == expected
    numbers = [int(found["id"].rpartition("-")[2]) for found in told]
    assert numbers == sorted(numbers)


def test_whoever_writes_lines_and_fails_harms_nobody(
    pki: Pki, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(lines: bytes) -> None:
        raise RuntimeError("the disk is full")

    def lost() -> int:
        return sum(map(int, re.findall(r"record_lines.write failed; (\d+) records are lost", caplog.text)))

    options = {"on_records": None, "record_lines": lbcore.RecordLines(fail, "lb-1", repr)}
    with Balancer(pki, upstream, engine=options) as lb:
        for _ in range(3):
            with connect(pki, lb.port) as client:
                client.echo(b"x")
            plain(lb.port).close()
            lb.wait_quiet()
        wait_until(lambda: lost() == 6, "it is logged")
    assert "the disk is full" in caplog.text


@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_line_that_cannot_be_written_costs_no_other(
    pki: Pki, upstream: Upstream, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    written: list[bytes] = []

    def fail(record: lbcore.Record) -> str:
        raise error("no words for it")

    options = {"on_records": None, "record_lines": lbcore.RecordLines(written.append, "lb-1", fail)}
    with Balancer(pki, upstream, engine=options) as lb:
        plain(lb.port).close()
        lb.wait_quiet()
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        wait_until(lambda: written, "the other one is written")
        wait_until(lambda: "no words for it" in caplog.text, "it is logged")
    assert b"".join(written).count(b"\n") == 1


@pytest.mark.parametrize("as_lines", [False, True], ids=["records", "lines"])
def test_refusals_of_one_kind_are_held_to_a_rate(
    pki: Pki, upstream: Upstream, keep: Keep, as_lines: bool
) -> None:
    """Nothing more comes after them: the time alone brings the sum, and the stop what is left."""
    told: list[str] = []
    sums: list[lbcore.RefusalSum] = []
    selection = lbcore.RecordSelection(refusals=2, on_sums=sums.extend)

    def take(batch: Sequence[lbcore.Record]) -> None:
        told.extend(record.reason for record in batch)

    def line(record: lbcore.Record) -> None:
        told.append(record.reason)

    options: Options = {"on_records": None if as_lines else take, "record_selection": selection}
    if as_lines:
        options["record_lines"] = lbcore.RecordLines(print, "lb-1", line)
    refused = 12
    with Balancer(pki, upstream, engine=options) as lb:
        for _ in range(refused):
            with plain(lb.port) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                client.recv(1)
        lb.wait_quiet()
        wait_until(lambda: len(told) + sum(found.count for found in sums) == refused, "all are told of")
        assert len(told) < refused
        for _ in range(refused):
            with plain(lb.port) as client:
                client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                client.recv(1)
        lb.wait_quiet()
    assert len(told) + sum(found.count for found in sums) == 2 * refused
    assert set(told) == {"not_tls"}
    assert {(found.app, found.client, found.reason) for found in sums} == {("web", None, "not_tls")}


def test_a_consumer_of_sums_that_fails_harms_nobody(
    pki: Pki, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sums: Sequence[lbcore.RefusalSum]) -> None:
        raise RuntimeError("the disk is full")

    selection = lbcore.RecordSelection(refusals=0, on_sums=fail)
    with Balancer(pki, upstream, engine={"record_selection": selection}) as lb:
        plain(lb.port).close()
        wait_until(lambda: "on_sums failed; 1 sums are lost" in caplog.text, "it is logged")
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        assert lb.record().reason == "client_closed"


def test_a_sample_of_nothing_has_refusals_alone(pki: Pki, upstream: Upstream) -> None:
    with Balancer(pki, upstream, engine={"record_selection": lbcore.RecordSelection(0.0)}) as lb:
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
        plain(lb.port).close()
        assert lb.record().event == "conn.deny"


def test_without_a_consumer_nothing_is_written_down(pki: Pki, upstream: Upstream) -> None:
    with Balancer(pki, upstream, engine={"on_records": None}) as lb:
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        lb.wait_quiet()
        assert "lbcore-records" not in core_threads()


# ---- last words ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1024, 16384, 65536])
def test_a_temporary_refusal_is_readable_whatever_the_client_had_said(
    balance: MakeBalancer, keep: Keep, pki: Pki, size: int
) -> None:
    """Closing with unread bytes in the socket would send a reset that destroys the close_notify."""
    lb = balance(keep(Refuser()))
    context = client_context(pki, pki.alice)
    for _ in range(10):
        with TlsClient(lb.port, context) as client:
            client.handshake()
            client.send(bytes(size))
            assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)


def test_lingering_is_short(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """A refused client that neither reads nor closes is not waited for."""
    lb = balance(keep(Refuser()))
    clients = [connect(pki, lb.port) for _ in range(20)]
    lb.records.wait(20, reason="connect_failed")
    watch = Stopwatch()
    lb.wait_quiet()
    assert watch.seconds < 4
    for client in clients:
        client.close()


def test_a_lingering_client_holds_no_slot(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Refuser()))
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=1))
    clients = [keep(connect(pki, lb.port)) for _ in range(3)]
    assert len(lb.records.wait(3)) == 3
    assert limits.open == 0
    assert {record.reason for record in lb.records.all()} <= {"connect_failed", "concurrent"}
    for client in clients:
        assert client.receive_to_end()[1] is End.CLOSE_NOTIFY


def end_client(client: TlsClient, how: str) -> None:
    if how == "reset":
        client.reset()
        return
    if how == "polite":
        client.send_close_notify()
    client.send_fin()


def end_upstream(session: Session, how: str) -> None:
    if how == "reset":
        reset(session.sock)
    elif how == "close":
        session.sock.close()
    else:
        session.sock.shutdown(socket.SHUT_WR)


def reason_of(client_end: str, upstream_end: str, *, client_first: bool) -> str:
    """Whoever came first; but after a proper end the other side can still make an abort of it."""
    if client_end == "reset" and (client_first or upstream_end != "reset"):
        return "client_reset"
    if client_end == "fin" and client_first:
        return "client_truncated"
    if upstream_end == "reset":
        return "upstream_reset"
    return "client_closed" if client_first else "upstream_closed"


def end_together(
    lb: Balancer, pairs: list[tuple[TlsClient, Session]], client_end: str, upstream_end: str
) -> bool:
    """Ends both sides of each, in turns one or the other first; whether the worker slept meanwhile."""
    woken = lb.engine.stats()["workers"][0]["wakeups"]
    with workers_held_back():
        for number, (client, session) in enumerate(pairs):
            with contextlib.suppress(OSError):  # the other end may have come back already
                if number % 2:
                    end_client(client, client_end)
                end_upstream(session, upstream_end)
                if not number % 2:
                    end_client(client, client_end)
    return bool(lb.engine.stats()["workers"][0]["wakeups"] - woken < len(pairs) / 2)


@pytest.mark.parametrize("upstream_end", ["fin", "reset", "close"])
@pytest.mark.parametrize("client_end", ["polite", "fin", "reset"])
def test_both_sides_end_at_the_same_moment(
    balance: MakeBalancer, keep: Keep, pki: Pki, client_end: str, upstream_end: str
) -> None:
    """The worker finds both ends when it looks, of many connections at once."""
    upstream = keep(Upstream(hold))
    lb = balance(upstream, engine={"workers": 1})
    expected: Counter[str] = Counter()
    rounds = 0
    while rounds < END_ROUNDS:  # one in which a busy machine woke the worker does not count
        done = sum(expected.values())
        assert done < 10 * END_ROUNDS * ENDS_AT_ONCE, "the worker cannot be held back"
        pairs = [(keep(connect(pki, lb.port)), upstream.session(done + n)) for n in range(ENDS_AT_ONCE)]
        lb.wait_open(ENDS_AT_ONCE)
        rounds += end_together(lb, pairs, client_end, upstream_end)
        for number, (client, session) in enumerate(pairs):
            reason = reason_of(client_end, upstream_end, client_first=number % 2 == 1)
            expected[reason] += 1
            clean = reason in ("client_closed", "upstream_closed")
            if client_end != "reset":
                assert (client.receive_to_end()[1] is End.CLOSE_NOTIFY) == clean
            session.released.set()
            if upstream_end == "fin":
                assert session.wait_end() is (End.FIN if clean else End.RESET)
        lb.wait_quiet()
    lb.records.wait(sum(expected.values()))
    assert Counter(record.reason for record in lb.records.all()) == expected


# ---- stop ----------------------------------------------------------------------------------------


def test_stop_resets_who_is_open(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(hold))
    lb = balance(upstream)
    with forwarding(lb, pki) as client:
        assert lb.engine.stop() is False
        assert client.receive_to_end()[1] is not End.CLOSE_NOTIFY
    assert (lb.record().event, lb.record().reason) == ("conn.close", "drained")
    assert lb.held() == {}
    upstream.session().released.set()
    assert upstream.session().wait_end() is End.RESET


def test_stop_of_an_idle_engine_is_at_once(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    watch = Stopwatch()
    assert lb.engine.stop(drain=30.0) is True
    assert watch.seconds < 5
    assert lb.engine.stop() is True
    assert (lb.engine.state, lb.engine.running) == ("stopped", False)
    wait_until(lambda: not core_threads(), "no threads are left")
    with pytest.raises(RuntimeError, match="stopped"):
        lb.engine.start()
    with pytest.raises(ConnectionRefusedError):
        plain(lb.port)


def test_a_drain_lets_open_connections_finish(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, pki: Pki
) -> None:
    lb = balance(upstream)
    client = keep(connect(pki, lb.port))
    client.echo(b"before")
    answers = []
    stopping = threading.Thread(target=lambda: answers.append(lb.engine.stop(drain=20.0)))
    stopping.start()
    wait_until(lambda: lb.engine.state == "stopping", "it drains")
    wait_until(lambda: refuses(lb.port), "the port is closed")
    client.echo(b"still served")
    assert stopping.is_alive()
    client.close()
    stopping.join(10)
    assert answers == [True]
    assert lb.record(event="conn.close").reason == "client_closed"


def refuses(port: int) -> bool:
    try:
        plain(port).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_a_drain_has_an_end(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    with forwarding(lb, pki) as client:
        watch = Stopwatch()
        assert lb.engine.stop(drain=0.4) is False
        assert 0.3 < watch.seconds < 5
        assert client.receive_to_end()[1] is not End.CLOSE_NOTIFY
    assert lb.record().reason == "drained"


def test_a_drain_can_be_cut_short(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    with forwarding(lb, pki) as client:
        answers = []
        stopping = threading.Thread(target=lambda: answers.append(lb.engine.stop(drain=30.0)))
        stopping.start()
        wait_until(lambda: lb.engine.state == "stopping", "it drains")
        watch = Stopwatch()
        lb.engine.abort_drain()
        stopping.join(10)
        assert watch.seconds < 5
        assert answers == [False]
        client.receive_to_end()


def test_who_waits_in_the_kernels_queue_is_served_before_the_port_closes(
    balance: MakeBalancer, upstream: Upstream, keep: Keep
) -> None:
    """The kernel has promised a connection to whoever is in its queue."""
    lb = balance(upstream, plaintext=True)
    clients = [keep(plain(lb.port)) for _ in range(100)]
    lb.listener.close()
    for client in clients:
        client.sendall(b"x")
        assert client.recv(1) == b"x"


def test_stop_under_load_leaves_nothing(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream())
    lb = balance(upstream)
    going = threading.Event()
    going.set()

    def visit() -> None:
        while going.is_set():
            try:
                with connect(pki, lb.port) as client:
                    client.echo(b"x" * 1000)
            except (OSError, AssertionError):
                continue

    visitors = [threading.Thread(target=visit, daemon=True) for _ in range(8)]
    for visitor in visitors:
        visitor.start()
    lb.records.wait(50)
    lb.engine.stop(drain=0.1)
    going.clear()
    for visitor in visitors:
        visitor.join(20)
    assert lb.held() == {}
    assert sum(record.event == "conn.close" for record in lb.records.all()) <= upstream.accepted


# ---- what is going on ----------------------------------------------------------------------------


def test_the_table_of_open_connections(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(sink))
    lb = balance(upstream)
    with forwarding(lb, pki) as client:
        client.send(b"12345")
        wait_until(lambda: lb.engine.connections()[0]["bytes_in"] == 5, "the bytes are counted")
        [row] = lb.engine.connections()
        assert row["source"] == client.source
        assert (row["app"], row["stage"], row["client"]) == ("web", "forward", "alice")
        assert (row["serial"], row["upstream"]) == (pki.alice.serial, upstream.address)
        host, port = upstream.session().sock.getpeername()
        assert row["upstream_local"] == f"{host}:{port}"
        assert row["age_s"] >= 0
    assert lb.record().id == row["id"]


def test_a_plain_client_that_stays_after_a_clean_end(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Refuser()), plaintext=True)
    with plain(lb.port) as client:
        assert read_to_end(client) == (b"", End.FIN)
        lb.wait_quiet()
