"""Stage 8, forward: every byte once and in order, ends passed on as what they are, memory bounded."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import threading
import time

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import TlsClient, client_context, connect, plain, s_client
from kit.fixtures import Keep, MakeBalancer
from kit.memory import anonymous_bytes, pipe_ends
from kit.pki import Pki
from kit.servers import require_server
from kit.sockets import End, read_exactly, read_to_end, reset
from kit.upstreams import Script, Session, Upstream, echo, hold, reply_after_end, resetter, sink, source
from kit.waiting import wait_until

MIB = 1 << 20
SIZES = [0, 1, 16383, 16384, 16385, 65535, 65536, 65537, 1_000_003, 16 * MIB]


def pattern(size: int) -> bytes:
    """Bytes that show when some are lost, doubled or out of order."""
    return random.Random(size).randbytes(size)


def send_all(client: TlsClient | socket.socket, data: bytes) -> threading.Thread:
    """Sends on another thread, so that this one can read."""
    send = client.send if isinstance(client, TlsClient) else client.sendall

    def run() -> None:
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            send(data)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def forwarding(lb: Balancer, pki: Pki) -> TlsClient:
    """A client whose connection is past every earlier stage: an end before that cancels the dial."""
    client = connect(pki, lb.port)
    lb.wait_open(1)
    return client


# ---- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_down(balance: MakeBalancer, keep: Keep, pki: Pki, size: int) -> None:
    data = pattern(size)
    lb = balance(keep(Upstream(source(data))))
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (data, End.CLOSE_NOTIFY)
    record = lb.record()
    assert (record.reason, record.bytes_in, record.bytes_out) == ("upstream_closed", 0, size)


@pytest.mark.parametrize("size", SIZES)
def test_up(balance: MakeBalancer, keep: Keep, pki: Pki, size: int) -> None:
    data = pattern(size)
    upstream = keep(Upstream(sink))
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        client.send(data)
        client.send_close_notify()
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    assert upstream.session().wait_end() is End.FIN
    assert bytes(upstream.session().received) == data
    record = lb.record()
    assert (record.reason, record.bytes_in, record.bytes_out) == ("client_closed", size, 0)


@pytest.mark.parametrize("size", [1, 16384, 5 * MIB])
def test_both_ways_at_once(balance: MakeBalancer, upstream: Upstream, pki: Pki, size: int) -> None:
    lb = balance(upstream)
    data = pattern(size)
    plain_client, tls_client = lb.add("raw", upstream, plaintext=True), connect(pki, lb.port)
    with tls_client as client:
        # One thread: TLS objects are not for two. The echo's buffers take what is not read yet.
        received = bytearray()
        for start in range(0, size, 32768):
            part = data[start : start + 32768]
            client.send(part)
            received += client.receive(len(part))
        assert bytes(received) == data
    with plain(plain_client.port) as client:
        sender = send_all(client, data)
        assert read_exactly(client, size) == data
        sender.join(20)


@pytest.mark.parametrize("size", SIZES)
def test_plaintext(balance: MakeBalancer, keep: Keep, size: int) -> None:
    data = pattern(size)
    downstream, upstream = keep(Upstream(source(data))), keep(Upstream(sink))
    lb = balance(downstream, plaintext=True)
    other = lb.add("up", upstream, plaintext=True)
    with plain(lb.port) as client:
        assert read_to_end(client) == (data, End.FIN)
    with plain(other.port) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == (b"", End.FIN)
    assert upstream.session().wait_end() is End.FIN
    assert bytes(upstream.session().received) == data


@pytest.mark.parametrize("size", [65537, 4 * MIB])
def test_a_reader_that_pauses_still_gets_all_and_a_clean_end(
    balance: MakeBalancer, keep: Keep, pki: Pki, size: int
) -> None:
    """The upstream has ended long before; its last bytes wait in the balancer."""
    data = pattern(size)
    upstream = keep(Upstream(source(data)))
    lb = balance(upstream)
    client = TlsClient(lb.port, client_context(pki, pki.alice), receive_buffer=4096)
    with client:
        client.handshake()
        wait_until(lambda: lb.engine.connections()[0]["bytes_out"] > 0, "the first bytes are there")
        time.sleep(0.3)  # the pause is what is tested
        assert client.receive_to_end() == (data, End.CLOSE_NOTIFY)


def test_a_server_side_that_only_talks(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Many small writes become many records; none is lost."""
    parts = [bytes([n % 251]) * (n % 100 + 1) for n in range(3000)]

    def talk(session: Session) -> None:
        for part in parts:
            session.sock.sendall(part)

    lb = balance(keep(Upstream(talk)))
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"".join(parts), End.CLOSE_NOTIFY)


def test_single_bytes_both_ways(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        for byte in b"every one of these is a record of its own":
            client.echo(bytes([byte]))


# ---- TLS records ---------------------------------------------------------------------------------


def test_records_cut_anywhere(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        sealed = client.seal(b"in pieces")
        for byte in sealed:
            client.sock.sendall(bytes([byte]))
        assert client.receive(9) == b"in pieces"


@pytest.mark.parametrize("good", [1, 16384, 16385, 60000])
def test_what_came_before_a_bad_record_is_delivered(
    balance: MakeBalancer, keep: Keep, pki: Pki, good: int
) -> None:
    """In one segment: records that are fine, then one that is not."""
    upstream = keep(Upstream(sink))
    lb = balance(upstream)
    data = pattern(good)
    with forwarding(lb, pki) as client:
        client.sock.sendall(client.seal(data) + b"\x17\x03\x03\x00\x28" + os.urandom(40))
        assert client.receive_to_end()[1] in (End.RESET, End.FIN, End.ALERT)
    assert upstream.session().wait_end() is End.RESET
    assert bytes(upstream.session().received) == data
    record = lb.record()
    assert (record.event, record.reason, record.bytes_in) == ("conn.close", "client_reset", good)
    assert record.tls_error is not None


@pytest.mark.parametrize("updates", [1, 100])
def test_key_updates(balance: MakeBalancer, upstream: Upstream, updates: int) -> None:
    """`K` at the start of a line makes s_client change its keys and ask the server to do so too."""
    openssl = require_server("openssl")
    lb = balance(upstream)
    seen = s_client(
        openssl, lb.port, "-tls1_3", "-cert", str(lb.pki.alice.cert), "-key", str(lb.pki.alice.key),
        script=[
            (b"before\n", b"before"),
            *[(b"K\n", b"KEYUPDATE")] * updates,
            (b"after the new keys\n", b"after"),
        ],
    )  # fmt: skip
    assert "before" in seen
    assert seen.output.count("KEYUPDATE") == updates
    assert "after the new keys" in seen
    assert lb.record().bytes_in == len(b"before\nafter the new keys\n")


# ---- half-close ----------------------------------------------------------------------------------


def test_the_upstream_answers_after_the_client_has_ended(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    answer = pattern(300_000)
    upstream = keep(Upstream(reply_after_end(answer)))
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        client.send(b"all of the question")
        client.send_close_notify()
        assert client.receive_to_end() == (answer, End.CLOSE_NOTIFY)
    assert bytes(upstream.session().received) == b"all of the question"
    assert lb.record().reason == "client_closed"


def test_fin_after_close_notify_changes_nothing(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    answer = pattern(300_000)
    lb = balance(keep(Upstream(reply_after_end(answer))))
    with connect(pki, lb.port) as client:
        client.send(b"all of the question")
        client.send_close_notify()
        client.send_fin()
        assert client.receive_to_end() == (answer, End.CLOSE_NOTIFY)
    assert lb.record().reason == "client_closed"


def test_the_client_goes_on_after_the_upstream_has_ended(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(source(b"that was all")))
    lb = balance(upstream)
    data = pattern(MIB)
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"that was all", End.CLOSE_NOTIFY)
        client.send(data)
        client.send_close_notify()
        assert upstream.session().wait_end() is End.FIN
    assert bytes(upstream.session().received) == data
    assert lb.record().reason == "upstream_closed"


@pytest.mark.parametrize("size", [10, MIB])
def test_plaintext_half_close_both_ways(balance: MakeBalancer, keep: Keep, size: int) -> None:
    answer = pattern(size)
    late = keep(Upstream(reply_after_end(answer)))
    early = keep(Upstream(source(answer)))
    lb = balance(late, plaintext=True)
    other = lb.add("early", early, plaintext=True)
    with plain(lb.port) as client:
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == (answer, End.FIN)
    with plain(other.port) as client:
        assert read_to_end(client) == (answer, End.FIN)
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)
        assert early.session().wait_end() is End.FIN
    assert bytes(late.session().received) == bytes(early.session().received) == answer


# ---- aborts --------------------------------------------------------------------------------------


def test_an_upstream_reset_is_no_clean_end(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    before = pattern(100_000)
    upstream = keep(Upstream(resetter(before)))
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        assert client.receive(len(before)) == before
        client.send(b"x")
        data, end = client.receive_to_end()
    assert data == b""
    assert end is not End.CLOSE_NOTIFY
    record = lb.record()
    assert (record.event, record.reason, record.bytes_out) == ("conn.close", "upstream_reset", len(before))


def test_a_plaintext_upstream_reset_is_a_reset(balance: MakeBalancer, keep: Keep) -> None:
    lb = balance(keep(Upstream(resetter(b"hi"))), plaintext=True)
    with plain(lb.port) as client:
        assert client.recv(2) == b"hi"
        client.sendall(b"x")
        assert read_to_end(client) == (b"", End.RESET)


@pytest.mark.parametrize("script", [echo, sink, hold], ids=["echo", "sink", "hold"])
def test_a_client_reset_is_passed_on(balance: MakeBalancer, keep: Keep, pki: Pki, script: Script) -> None:
    upstream = keep(Upstream(script))
    lb = balance(upstream)
    with forwarding(lb, pki) as client:
        client.send(b"x")
        wait_until(lambda: lb.engine.connections()[0]["bytes_in"] == 1, "it is forwarded")
        client.reset()
    assert lb.record().reason == "client_reset"
    upstream.session().released.set()
    assert upstream.session().wait_end() is End.RESET


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_a_reset_after_a_half_close_is_noticed_at_once(
    balance: MakeBalancer, keep: Keep, pki: Pki, who: str
) -> None:
    """The half-close timeout is for those who are silent, not for those who are gone."""

    def end_then_reset(session: Session) -> None:
        session.sock.shutdown(socket.SHUT_WR)
        session.released.wait()
        reset(session.sock)

    upstream = keep(Upstream(end_then_reset if who == "upstream" else hold))
    lb = balance(upstream, app={"half_close_timeout": 60.0})
    with forwarding(lb, pki) as client:
        watch = Stopwatch()
        if who == "client":
            client.send_close_notify()
            wait_until(lambda: upstream.session().sock.recv(1, socket.MSG_PEEK) == b"", "the end arrives")
            client.reset()
        else:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
            upstream.session().released.set()
        record = lb.record()
        assert watch.seconds < 5
    assert record.reason == f"{who}_reset"


@pytest.mark.parametrize("size", [1, 100_000, 3 * MIB])
def test_a_client_that_vanishes_is_passed_on_as_a_reset(
    balance: MakeBalancer, keep: Keep, pki: Pki, size: int
) -> None:
    """FIN without close_notify: every byte is delivered, and then no clean end."""
    upstream = keep(Upstream(sink))
    lb = balance(upstream)
    data = pattern(size)
    with forwarding(lb, pki) as client:
        client.send(data)
        client.send_fin()
        assert client.receive_to_end()[1] is not End.CLOSE_NOTIFY
    assert upstream.session().wait_end() is End.RESET
    assert bytes(upstream.session().received) == data
    record = lb.record()
    assert (record.reason, record.bytes_in) == ("client_truncated", size)


def test_on_truncated_eof(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(reply_after_end(b"done")))
    lb = balance(upstream, app={"on_truncated": "eof"})
    with forwarding(lb, pki) as client:
        client.send(b"all there is")
        client.send_fin()
        assert client.receive_to_end() == (b"done", End.CLOSE_NOTIFY)
    assert bytes(upstream.session().received) == b"all there is"
    assert lb.record().reason == "client_closed"


def test_a_fin_after_the_upstream_has_ended_is_fine(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Our close_notify is out already: nobody takes an aborted stream for a complete one."""
    upstream = keep(Upstream(source(b"bye")))
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"bye", End.CLOSE_NOTIFY)
        client.send_fin()
        assert upstream.session().wait_end() is End.FIN
    assert lb.record().reason == "upstream_closed"


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_resets_while_bytes_flow_never_harm_the_process(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    """Writing to a socket that was reset raises SIGPIPE, in splice too."""
    upstream = keep(Upstream(source(bytes(8 * MIB))))
    lb = balance(upstream, plaintext=plaintext)
    for _ in range(30):
        if plaintext:
            client = plain(lb.port)
            client.recv(1000)
            reset(client)
        else:
            with connect(pki, lb.port) as client:
                client.receive(1000)
                client.reset()
    lb.records.wait(30, reason="client_reset")
    lb.wait_quiet()


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_upstream_resets_while_bytes_flow_never_harm_the_process(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    def read_some_then_reset(session: Session) -> None:
        read_exactly(session.sock, 1000)
        reset(session.sock)

    lb = balance(keep(Upstream(read_some_then_reset)), plaintext=plaintext)
    for _ in range(30):
        with plain(lb.port) if plaintext else connect(pki, lb.port) as client:
            send_all(client, bytes(4 * MIB)).join(20)
            # The sender may be the one to meet the reset; a reader then sees a bare end.
            end = (read_to_end(client) if isinstance(client, socket.socket) else client.receive_to_end())[1]
            assert end is not End.CLOSE_NOTIFY
    assert len(lb.records.wait(30, reason="upstream_reset")) == 30


# ---- stalls and memory ---------------------------------------------------------------------------


def settled(lb: Balancer) -> bool:
    """Whether no byte moves any more."""

    def moved() -> list[tuple[int, int]]:
        return [(row["bytes_in"], row["bytes_out"]) for row in lb.engine.connections()]

    before = moved()
    time.sleep(0.2)  # the time in which nothing moves
    return before == moved()


class Pusher:
    """Sends as long as anything is taken, without a thread and with little memory of its own."""

    def __init__(self, client: TlsClient | socket.socket) -> None:
        self._client = client
        self._sock = client.sock if isinstance(client, TlsClient) else client
        self._sock.setblocking(False)
        self._left = b""

    def push(self) -> None:
        block = bytes(16384)
        try:
            while True:
                if not self._left:
                    self._left = self._client.seal(block) if isinstance(self._client, TlsClient) else block
                self._left = self._left[self._sock.send(self._left) :]
        except BlockingIOError:
            return

    def close(self) -> None:
        reset(self._sock)


@pytest.mark.memory
@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_memory_of_stalled_connections_is_bounded(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    """Both directions full and nobody reads: less than 256 KiB each."""
    count = 32
    block = bytes(MIB)
    begin = threading.Event()

    def flood(session: Session) -> None:
        begin.wait(30)
        while not session.released.is_set():
            session.sock.sendall(block)

    upstream = keep(Upstream(flood, receive_buffer=4096))
    lb = balance(upstream, plaintext=plaintext)
    pushers = []
    for _ in range(count):
        if plaintext:
            client = plain(lb.port, receive_buffer=4096)
        else:
            client = TlsClient(lb.port, client_context(pki, pki.alice), receive_buffer=4096).handshake()
        pushers.append(keep(Pusher(client)))
    lb.wait_open(count)
    before = anonymous_bytes()
    begin.set()

    def stalled() -> bool:
        for pusher in pushers:
            pusher.push()
        return settled(lb)

    wait_until(stalled, "nothing moves", timeout=30)
    grown = anonymous_bytes() - before
    rows = lb.engine.connections()
    assert len(rows) == count
    assert all(row["bytes_in"] > 0 and row["bytes_out"] > 0 for row in rows)
    assert grown / count < 256 * 1024


def test_a_stall_loses_nothing_and_leaves_the_other_direction_alone(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    ticks = 50

    def tick_then_read(session: Session) -> None:
        for number in range(ticks):
            session.sock.sendall(b"tick %03d" % number)
            time.sleep(0.002)
        session.released.wait()
        session.collect()

    upstream = keep(Upstream(tick_then_read, receive_buffer=4096))
    lb = balance(upstream)
    data = pattern(12 * MIB)
    with connect(pki, lb.port) as client:
        client.sock.settimeout(0.3)
        sent = 0
        try:
            while sent < len(data):
                client.send(data[sent : sent + 65536])
                sent += 65536
        except TimeoutError:
            pass
        assert 0 < sent < len(data)
        client.sock.settimeout(20)
        assert client.receive(8 * ticks) == b"".join(b"tick %03d" % number for number in range(ticks))
        client.reset()  # what was cut in the middle of a record cannot be continued here
        upstream.session().released.set()
    upstream.session().wait_end()
    received = bytes(upstream.session().received)
    assert received == data[: len(received)]


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_a_reader_that_comes_back_gets_everything(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    upstream = keep(Upstream(hold, receive_buffer=4096))
    lb = balance(upstream, plaintext=plaintext)
    data = pattern(24 * MIB)
    client = plain(lb.port) if plaintext else connect(pki, lb.port)
    with client:
        sender = send_all(client, data)
        wait_until(lambda: settled(lb), "it is stalled")
        assert sender.is_alive()
        upstream.session().released.set()
        sender.join(30)
        if plaintext:
            client.shutdown(socket.SHUT_WR)
        else:
            client.send_close_notify()
        assert upstream.session().wait_end(20) is End.FIN
    assert hashlib.sha256(upstream.session().received).digest() == hashlib.sha256(data).digest()


def test_a_stalled_connection_never_slows_another(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    stuck, working = keep(Upstream(hold, receive_buffer=4096)), keep(Upstream())
    lb = balance(stuck, engine={"workers": 1})
    lb.policy.allow(pki.alice, "web", "other")
    other = lb.add("other", working)
    with connect(pki, lb.port) as stalled, connect(pki, other.port) as client:
        stalled.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stalled.send(bytes(64 * MIB))
        wakeups = lb.engine.stats()["workers"][0]["wakeups"]
        for number in range(200):
            client.echo(b"%d" % number)
        # A few for each echo, and not a million for the socket that cannot be written to.
        assert lb.engine.stats()["workers"][0]["wakeups"] - wakeups < 3000
        stalled.reset()


def wakeups_in(lb: Balancer, seconds: float) -> int:
    """How often all workers wake up in a time in which nothing happens."""

    def count() -> int:
        return sum(worker["wakeups"] for worker in lb.engine.stats()["workers"])

    before = count()
    time.sleep(seconds)
    return count() - before


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_a_hang_up_that_cannot_be_acted_on_wakes_nobody(
    balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool
) -> None:
    """Both FINs are exchanged with the client while its last bytes wait for a stalled upstream: epoll
    reports EPOLLHUP, asked or not."""

    def end_then_stall(session: Session) -> None:
        session.sock.shutdown(socket.SHUT_WR)
        hold(session)

    upstream = keep(Upstream(end_then_stall, receive_buffer=4096))
    lb = balance(upstream, plaintext=plaintext)
    block = pattern(65536)
    with plain(lb.port) if plaintext else connect(pki, lb.port) as client:
        if isinstance(client, TlsClient):
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
        else:
            assert read_to_end(client)[1] is End.FIN
        sent = 0
        while True:
            client.send(block) if isinstance(client, TlsClient) else client.sendall(block)
            sent += len(block)
            try:
                wait_until(lambda: lb.engine.connections()[0]["bytes_in"] == sent, timeout=0.3)  # noqa: B023
            except AssertionError:
                break  # it waits in the balancer's socket now
        if isinstance(client, TlsClient):
            client.send_close_notify()
            client.send_fin()
        else:
            client.shutdown(socket.SHUT_WR)
        assert wakeups_in(lb, 0.5) < 100
        upstream.session().released.set()
        assert upstream.session().wait_end() is End.FIN
    assert bytes(upstream.session().received) == block * (sent // len(block))
    assert lb.record().reason == "upstream_closed"


def test_quiet_connections_wake_nobody(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, pki: Pki
) -> None:
    """Idle or half-closed either way: after a second without bytes even the timers are far apart."""
    ended, late = keep(Upstream(source(b"bye"))), keep(Upstream(hold))
    lb = balance(upstream)
    lb.policy.allow(pki.alice, "web", "ended", "late")
    ports = [lb.port, lb.add("ended", ended).port, lb.add("late", late).port]
    for port in ports:
        for _ in range(5):
            client = keep(connect(pki, port))
            if port == ports[2]:
                client.send_close_notify()
    lb.wait_open(15)
    wait_until(lambda: wakeups_in(lb, 0.3) == 0, "nobody wakes up")


# ---- splice --------------------------------------------------------------------------------------


def test_plaintext_in_bulk_goes_through_pipes(balance: MakeBalancer, keep: Keep) -> None:
    upstream = keep(Upstream(sink))
    lb = balance(upstream, plaintext=True)
    data = pattern(24 * MIB)
    before = pipe_ends()
    with plain(lb.port) as client:
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        assert upstream.session().wait_end(20) is End.FIN
    assert upstream.session().received == data
    assert pipe_ends() > before


def test_tls_never_goes_through_pipes(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(sink))
    lb = balance(upstream)
    before = pipe_ends()
    with connect(pki, lb.port) as client:
        client.send(bytes(8 * MIB))
        client.send_close_notify()
        assert upstream.session().wait_end(20) is End.FIN
    assert pipe_ends() == before


def test_stalled_connections_keep_no_pipes(balance: MakeBalancer, keep: Keep) -> None:
    """Pipes are few: after a quiet moment the bytes wait elsewhere, and who is in bulk finds a pipe."""
    upstream = keep(Upstream(hold, receive_buffer=4096))
    lb = balance(upstream, plaintext=True, engine={"workers": 1})
    before = pipe_ends()
    data = pattern(8 * MIB)
    senders = []
    for _ in range(16):
        client = keep(plain(lb.port))
        senders.append((client, send_all(client, data)))
    lb.wait_open(16)
    kept_by_a_worker = 8
    wait_until(lambda: settled(lb) and pipe_ends() - before <= 2 * kept_by_a_worker, "the pipes are back")
    for number, (client, sender) in enumerate(senders):
        upstream.session(number).released.set()
        sender.join(20)
        client.shutdown(socket.SHUT_WR)
        assert upstream.session(number).wait_end(20) is End.FIN
        assert upstream.session(number).received == data


def test_small_segments_do_not_jam_a_pipe(balance: MakeBalancer, keep: Keep) -> None:
    """A pipe has a slot per segment, so some 23 kB of small ones fill it while it looks nearly empty."""
    bulk = pattern(6 * MIB)
    parts = [bytes([n % 251]) * (n % 100 + 1) for n in range(40_000)]

    def talk(session: Session) -> None:
        session.sock.sendall(bulk)
        for part in parts:
            session.sock.sendall(part)

    lb = balance(keep(Upstream(talk)), plaintext=True)
    with plain(lb.port, receive_buffer=8192) as client:
        received = bytearray()
        while len(received) < 2 * MIB:
            received += client.recv(4096)
        time.sleep(0.3)  # the pause in which the pipe fills
        received += read_to_end(client)[0]
    assert bytes(received) == bulk + b"".join(parts)


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_idle_connections_end(balance: MakeBalancer, upstream: Upstream, pki: Pki, plaintext: bool) -> None:
    lb = balance(upstream, plaintext=plaintext, app={"idle_timeout": 0.4})
    with plain(lb.port) if plaintext else connect(pki, lb.port) as client:
        if plaintext:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert read_to_end(client)[1] is End.RESET
        else:
            client.echo(b"x")
            assert client.receive_to_end()[1] is End.RESET
    record = lb.record()
    assert (record.event, record.reason) == ("conn.close", "idle")
    assert 390 <= record.duration_ms < 4000
    assert upstream.session().wait_end() is End.RESET


@pytest.mark.parametrize("direction", ["up", "down"])
def test_traffic_in_one_direction_keeps_it_open(
    balance: MakeBalancer, keep: Keep, pki: Pki, direction: str
) -> None:
    def talk(session: Session) -> None:
        for _ in range(15):
            session.sock.sendall(b".")
            time.sleep(0.1)
        session.collect()

    upstream = keep(Upstream(sink if direction == "up" else talk))
    lb = balance(upstream, app={"idle_timeout": 1.0})
    with connect(pki, lb.port) as client:
        if direction == "down":
            assert client.receive(15) == b"." * 15
        else:
            for _ in range(15):
                client.send(b".")
                time.sleep(0.1)
            wait_until(lambda: len(upstream.session().received) == 15, "all arrive")
        assert lb.stages() == ["forward"]


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_half_closed_connections_end(balance: MakeBalancer, keep: Keep, pki: Pki, who: str) -> None:
    upstream = keep(Upstream(hold if who == "client" else source(b"")))
    lb = balance(upstream, app={"half_close_timeout": 0.4, "idle_timeout": 60.0})
    with connect(pki, lb.port) as client:
        watch = Stopwatch()
        if who == "client":
            client.send_close_notify()
        else:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
        record = lb.record()
        assert 0.3 < watch.seconds < 4
    assert (record.event, record.reason) == ("conn.close", "half_close_timeout")


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
@pytest.mark.parametrize("who", ["client", "upstream"])
def test_the_half_close_timeout_counts_from_the_half_close(
    balance: MakeBalancer, keep: Keep, pki: Pki, who: str, plaintext: bool
) -> None:
    """Not from the last byte: a connection that was quiet for longer than that is not ended at once."""

    def end_when_told(session: Session) -> None:
        session.released.wait()
        session.sock.shutdown(socket.SHUT_WR)
        session.collect()

    upstream = keep(Upstream(end_when_told))
    app = {"half_close_timeout": 1.0, "idle_timeout": 60.0}
    lb = balance(upstream, plaintext=plaintext, app=app)
    with plain(lb.port) if plaintext else connect(pki, lb.port) as client:
        lb.wait_open(1)
        time.sleep(1.3)  # the quiet that used the timeout up
        watch = Stopwatch()
        if who == "upstream":
            upstream.session().released.set()
        elif isinstance(client, TlsClient):
            client.send_close_notify()
        else:
            client.shutdown(socket.SHUT_WR)
        record = lb.record()
        assert 0.9 < watch.seconds < 5
    assert record.reason == "half_close_timeout"


def test_a_half_closed_connection_lives_while_bytes_flow(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Half-closed by the client or by the upstream, TLS or not: kept while a byte comes now and then, longer
    than the timeout is, and ended by it afterwards. All four at once, since they take their time."""
    app = {"half_close_timeout": 0.6, "idle_timeout": 60.0}
    pace, count = 0.1, 12

    def trickle(session: Session) -> None:
        session.collect()
        for _ in range(count):
            session.sock.sendall(b".")
            time.sleep(pace)
        session.released.wait()

    def end_first(session: Session) -> None:
        session.sock.shutdown(socket.SHUT_WR)
        session.collect()

    late, early = keep(Upstream(trickle)), keep(Upstream(end_first))
    lb = balance(late, app=app)
    lb.policy.allow(pki.alice, "web", "early")
    raw_late = lb.add("raw late", late, plaintext=True, **app)
    raw_early = lb.add("raw early", early, plaintext=True, **app)
    listening, raw_listening = keep(connect(pki, lb.port)), keep(plain(raw_late.port))
    talking = keep(connect(pki, lb.add("early", early, **app).port))
    raw_talking = keep(plain(raw_early.port))
    lb.wait_open(4)
    assert talking.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    assert read_to_end(raw_talking) == (b"", End.FIN)
    listening.send_close_notify()
    raw_listening.shutdown(socket.SHUT_WR)
    for _ in range(count):
        talking.send(b".")
        raw_talking.sendall(b".")
        time.sleep(pace)
    records = lb.records.wait(4, reason="half_close_timeout")
    assert all(record.duration_ms > 1000 * (pace * count + 0.5) for record in records)
    assert listening.receive_to_end() == (b"." * count, End.RESET)
    assert read_to_end(raw_listening) == (b"." * count, End.RESET)
    assert [early.session(number).wait_end() for number in range(2)] == [End.RESET] * 2
    assert [bytes(early.session(number).received) for number in range(2)] == [b"." * count] * 2


def test_a_quiet_connection_works_after_its_buffers_went_back(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """After a second without a byte the TLS state shrinks; the listener may even be gone by then."""
    lb = balance(upstream)
    data = pattern(100_000)
    with connect(pki, lb.port) as client:
        client.echo(data)
        for _ in range(2):
            time.sleep(1.2)  # there is no sign of it from outside
            client.echo(data)
        lb.listener.close()
        time.sleep(1.2)
        client.echo(data)
    record = lb.record()
    assert record.reason == "client_closed"
    assert record.cipher is not None
