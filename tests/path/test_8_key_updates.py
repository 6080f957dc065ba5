"""Key updates in the middle of everything, and records that carry nothing: followed, answered, bounded."""

from __future__ import annotations

import contextlib
import hashlib
import random
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from kit.balancer import TLS_ENGINE, Balancer, Thinker
from kit.clients import connect
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.records import ALERT, CLOSE_NOTIFY, DATA, HANDSHAKE, RecordClient, key_update
from kit.sockets import End
from kit.upstreams import Upstream, sink
from kit.waiting import wait_until

import lbcore

KIB, MIB = 1 << 10, 1 << 20
#: Records without data in a row that everybody may send.
IN_A_ROW = 128
#: Seconds after which a connection's buffers have gone back.
QUIET = 0.3


def forwarded(lb: Balancer, pki: Pki) -> RecordClient:
    """A client whose connection is past every earlier stage."""
    client = RecordClient(pki, lb.port)
    lb.wait_open(1)
    return client


def updates(client: RecordClient, count: int, *, wants_answer: bool = True) -> bytes:
    """So many records with nothing but a key update."""
    return b"".join(client.sealed_update(wants_answer=wants_answer) for _ in range(count))


def flooded(lb: Balancer) -> lbcore.Record:
    """The record of the one that sent too many."""
    return lb.record(reason="client_reset", tls_error="too many records without data")


@pytest.mark.parametrize("wants_answer", [False, True], ids=["one side", "both sides"])
def test_keys_change_in_the_middle_of_transfers(
    balance: MakeBalancer, keep: Keep, pki: Pki, wants_answer: bool
) -> None:
    """Both directions at once, through buffers so small that records are cut everywhere."""
    upstream = keep(Upstream(receive_buffer=8 * KIB))
    lb = balance(upstream)
    data = random.Random(1).randbytes(8 * MIB)
    sizes = random.Random(2)
    changed = 0

    def parts() -> Iterator[bytes]:
        nonlocal changed
        at = since = 0
        while at < len(data):
            part = data[at : at + sizes.choice([1, 100, 5000, 16384])]
            at += len(part)
            since += len(part)
            yield client.seal(part)
            if since > 256 * KIB:
                since = 0
                changed += 1
                yield client.sealed_update(wants_answer=wants_answer)

    def send() -> None:
        for part in parts():
            client.sock.sendall(part)
        client.send_close_notify()

    with RecordClient(pki, lb.port, receive_buffer=8 * KIB, send_buffer=8 * KIB) as client:
        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        received, end = client.receive_to_end()
        sender.join(20)
    assert end is End.CLOSE_NOTIFY
    assert hashlib.sha256(received).digest() == hashlib.sha256(data).digest()
    assert changed > 20
    # Several questions may have one answer, but no key is changed unasked.
    assert (0 < client.answers <= changed) if wants_answer else client.answers == 0
    assert lb.record().reason == "client_closed"


def test_a_key_update_with_every_record_is_fine(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    part = bytes(KIB)
    with RecordClient(pki, lb.port) as client:
        for _ in range(20):
            pairs = [client.seal(part) + client.sealed_update(wants_answer=True) for _ in range(50)]
            client.sock.sendall(b"".join(pairs))
            client.receive(50 * KIB)
    assert lb.record().reason == "client_closed"


def test_some_in_a_row_are_fine(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    with RecordClient(pki, lb.port) as client:
        for _ in range(5):
            client.sock.sendall(updates(client, IN_A_ROW - 1) + client.seal(b"and data"))
            assert client.receive(8) == b"and data"


@pytest.mark.parametrize("at_once", [4000, 20, 1], ids=["in one piece", "in pieces", "one by one"])
def test_a_flood_of_key_updates_is_ended(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, at_once: int
) -> None:
    """The neighbour on the same worker goes on meanwhile."""
    lb = balance(upstream, engine={"workers": 1})
    with forwarded(lb, pki) as client, connect(pki, lb.port) as neighbour:
        neighbour.echo(b"before")
        try:
            for _ in range(4000 // at_once):
                client.sock.sendall(updates(client, at_once))
                if at_once < 4000:
                    neighbour.echo(b"meanwhile")
        except (ConnectionResetError, BrokenPipeError):
            pass
        record = flooded(lb)
        neighbour.echo(b"after")
    assert (record.event, record.bytes_in, record.client) == ("conn.close", 0, "alice")
    wait_until(
        lambda: End.RESET in [session.ended for session in upstream.sessions], "it is passed on as a reset"
    )


def test_a_flood_between_data_is_ended(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """A byte of data with each does not make it honest: what one wake-up spends on them is bounded."""
    lb = balance(keep(Upstream(sink)), engine={"workers": 1})
    with forwarded(lb, pki) as client:
        pairs = [client.seal(b"x") + client.sealed_update(wants_answer=True) for _ in range(2000)]
        client.sock.sendall(b"".join(pairs))
        record = flooded(lb)
    assert 0 < record.bytes_in < 2000


@pytest.mark.parametrize("kind", [DATA, HANDSHAKE], ids=["empty records", "many updates in one record"])
def test_other_records_without_data(balance: MakeBalancer, upstream: Upstream, pki: Pki, kind: int) -> None:
    """With much padding. OpenSSL refuses the second kind by itself (RFC 8446, 5.1)."""
    lb = balance(upstream)
    with forwarded(lb, pki) as client:
        content = b"" if kind == DATA else key_update(wants_answer=True) * 100
        records = [client.seal(content, kind, padding=10_000) for _ in range(300)]
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sock.sendall(b"".join(records))
        assert client.receive_to_end()[1] in (End.RESET, End.FIN, End.ALERT)
    assert lb.record(reason="client_reset").tls_error is not None


def test_packed_updates_are_counted_by_their_bytes(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    """A thousand in a record, and a byte of data after each such record. OpenSSL refuses them by itself."""
    upstream = keep(Upstream(sink))
    lb = balance(upstream)
    with forwarded(lb, pki) as client:
        record = client.sealed_update(wants_answer=False, count=1000)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sock.sendall(record + client.seal(b"x"))
        assert client.receive_to_end()[1] in (End.RESET, End.FIN, End.ALERT)
    ended = lb.record(reason="client_reset")
    assert ended.tls_error in ("too many records without data", "not on record boundary")
    assert ended.bytes_in == 0


def test_an_update_that_is_cut_is_one(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """Its last byte comes in a record of its own, and after the buffers of a quiet connection went back."""
    lb = balance(upstream)
    message = key_update(wants_answer=True)
    with RecordClient(pki, lb.port) as client:
        client.send(b"x")
        client.receive(1)
        client.sock.sendall(client.seal(message[:4], HANDSHAKE))
        time.sleep(QUIET)
        client.sock.sendall(client.seal(message[4:], HANDSHAKE))
        client.follow_own_update()
        client.send(b"under the new key")
        assert client.receive(17) == b"under the new key"
        assert client.answers == 1
    assert lb.record().reason == "client_closed"


@pytest.mark.skipif(TLS_ENGINE != "openssl", reason="the other engine answers with the next data it sends")
def test_who_asks_for_updates_and_reads_no_answer(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """The answers fill its socket, then what a connection may owe; the data between is as it should be."""
    lb = balance(keep(Upstream(sink)))
    part = bytes(KIB)
    with RecordClient(pki, lb.port, receive_buffer=4 * KIB) as client:
        lb.wait_open(1)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while not lb.records.all():
                pairs = [client.seal(part) + client.sealed_update(wants_answer=True) for _ in range(100)]
                client.sock.sendall(b"".join(pairs))
    record = lb.record(reason="client_reset")
    assert record.tls_error == "key updates are asked for and not read"


@pytest.mark.skipif(TLS_ENGINE != "openssl", reason="the other engine answers with the next data it sends")
def test_who_reads_the_answers_later(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Some fill its socket and some are owed, however many a single read asks for."""
    lb = balance(keep(Upstream(sink)))
    part, count = bytes(500), 11_000
    with RecordClient(pki, lb.port, receive_buffer=4 * KIB, segment=536) as client:
        lb.wait_open(1)
        pairs = [client.seal(part) + client.sealed_update(wants_answer=True) for _ in range(count)]
        client.sock.sendall(b"".join(pairs))
        wait_until(
            lambda: lb.engine.connections()[0]["bytes_in"] == count * len(part), "everything has been read"
        )
        client.send_close_notify()
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
        assert 0 < client.answers <= count
    record = lb.record()
    assert (record.reason, record.bytes_in, record.tls_error) == ("client_closed", count * len(part), None)


def test_a_record_of_which_few_bytes_are_missing(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """The rest of a record may be as long as a header, and is none. An echo of the neighbour on the same
    worker shows that what came before was read."""
    lb = balance(upstream, engine={"workers": 1})
    with forwarded(lb, pki) as client, connect(pki, lb.port) as neighbour:
        for missing in range(1, 9):
            data = bytes([missing]) * 10_000
            record = client.seal(data)
            client.sock.sendall(record[:-missing])
            neighbour.echo(b"meanwhile")
            client.sock.sendall(record[-missing:])
            assert client.receive(len(data)) == data


def test_padded_data_is_data(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """Whoever hides the lengths of what it says is not flooding."""
    lb = balance(upstream)
    with RecordClient(pki, lb.port) as client:
        for _ in range(3):
            client.sock.sendall(b"".join(client.seal(b"x", padding=4000) for _ in range(100)))
            client.receive(100)


def test_a_flood_before_the_verdict(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """While the policy still thinks, the records are read already."""
    policy = Thinker(10.0)
    lb = balance(upstream, authorize=policy, engine={"authorize_timeout": 10.0})
    with RecordClient(pki, lb.port) as client:
        assert policy.thinking.wait(10)
        client.sock.sendall(updates(client, 400))
        record = lb.record(reason="client_gone")
        policy.answered.set()
    assert record.tls_error == "too many records without data"
    assert upstream.accepted == 0


@pytest.mark.skipif(TLS_ENGINE != "openssl", reason="the other engine answers with the next data it sends")
def test_answers_that_wait_for_the_verdict(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """What the client does not read is not held beside what it has said: it is read when that is gone."""
    policy = Thinker(30.0)
    lb = balance(keep(Upstream(sink)), authorize=policy, engine={"authorize_timeout": 30.0})
    with RecordClient(pki, lb.port, receive_buffer=4 * KIB, send_buffer=8 * KIB, segment=536) as client:
        assert policy.thinking.wait(10)
        left, said = b"", 0
        while select.select([], [client.sock], [], 1.0)[1]:
            if not left:
                said += 1
                left = client.seal(b"x", padding=13_000) + updates(client, 12)
            left = left[client.sock.send(left, socket.MSG_DONTWAIT) :]
        assert lb.engine.connections()[0]["stage"] == "authorize"
        policy.answered.set()
        left += client.seal(CLOSE_NOTIFY, ALERT)
        sender = threading.Thread(target=client.sock.sendall, args=(left,))
        sender.start()
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
        sender.join(10)
        assert 0 < client.answers <= 12 * said  # several questions may have one
    record = lb.record()
    assert (record.reason, record.bytes_in, record.tls_error) == ("client_closed", said, None)
