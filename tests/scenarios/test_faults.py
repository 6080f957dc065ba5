"""The fault-injecting proxy does what it says, and the balancer behind it what it must."""

from __future__ import annotations

import random
import socket
import time

import pytest
from kit.balancer import Stopwatch
from kit.clients import TlsClient, connect, plain
from kit.faults import Ending, Faults, FaultyProxy
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_exactly, read_to_end, reset
from kit.upstreams import Session, Upstream, reply_after_end, resetter, sink, source
from kit.waiting import wait_until

DATA = random.Random(1).randbytes(300_000)


def data_segments(sock: socket.socket) -> int:
    """Segments with data that came in (linux/tcp.h, tcpi_data_segs_in)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int.from_bytes(info[152:156], "little")


# ---- the proxy alone -----------------------------------------------------------------------------


def test_without_faults_everything_is_passed_on(keep: Keep) -> None:
    answering, aborting = keep(Upstream(reply_after_end(DATA))), keep(Upstream(resetter(b"hi")))
    with plain(keep(FaultyProxy(answering.port)).port) as client:
        client.sendall(DATA)
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == (DATA, End.FIN)
    assert bytes(answering.session().received) == DATA
    with plain(keep(FaultyProxy(aborting.port)).port) as client:
        assert read_exactly(client, 2) == b"hi"
        client.sendall(b"x")
        assert read_to_end(client) == (b"", End.RESET)
    client = plain(keep(FaultyProxy(answering.port)).port)
    answering.session(1)
    reset(client)
    assert answering.session(1).wait_end() is End.RESET


def test_segments(keep: Keep) -> None:
    upstream = keep(Upstream(sink))
    proxy = keep(FaultyProxy(upstream.port, up=Faults(segment=3)))
    with plain(proxy.port) as client:
        client.sendall(DATA[:3000])
        wait_until(lambda: len(upstream.session().received) == 3000, "all arrive")
        assert data_segments(upstream.session().sock) >= 1000  # a busy machine's kernel sends some twice
    assert bytes(upstream.session().received) == DATA[:3000]


def test_one_byte_is_flipped(keep: Keep) -> None:
    upstream = keep(Upstream(source(DATA)))
    with plain(keep(FaultyProxy(upstream.port, down=Faults(flip=70_000, segment=999))).port) as client:
        received, end = read_to_end(client)
    assert end is End.FIN
    assert [at for at in range(len(DATA)) if received[at] != DATA[at]] == [70_000]


def test_a_stall_lasts_until_it_is_released(keep: Keep) -> None:
    upstream = keep(Upstream(source(DATA)))
    proxy = keep(FaultyProxy(upstream.port, down=Faults(stall=70_000)))
    with plain(proxy.port) as client:
        received = read_exactly(client, 70_000)
        wait_until(lambda: proxy.link().down.stalled, "it stalls")
        assert proxy.link().down.passed == 70_000
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(20)
        proxy.release()
        rest, end = read_to_end(client)
    assert (received + rest, end) == (DATA, End.FIN)


def test_a_slow_reader_holds_its_sender_back(keep: Keep) -> None:
    upstream = keep(Upstream(sink))
    slow = Faults(segment=1000, pause=0.01)
    proxy = keep(FaultyProxy(upstream.port, up=slow, receive_buffer=4096))
    with plain(proxy.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.setblocking(False)
        watch, sent = Stopwatch(), 0
        while watch.seconds < 0.1:  # the time in which little is taken
            try:
                sent += client.send(DATA[sent:])
            except BlockingIOError:
                time.sleep(0.001)
        assert sent < 60_000
        assert proxy.link().up.passed <= 1000 * (watch.seconds / 0.01 + 1)
        reset(client)


@pytest.mark.parametrize("after", [1, 1000, 100_000])
@pytest.mark.parametrize(
    ("ending", "sender", "receiver"),
    [
        (Ending.HALF_CLOSE, None, End.FIN),
        (Ending.CUT, End.FIN, End.FIN),
        (Ending.RESET, End.RESET, End.RESET),
        (Ending.RESET_RECEIVER, None, End.RESET),
        (Ending.RESET_SENDER, End.RESET, None),
    ],
    ids=[ending.name for ending in Ending],
)
def test_endings(keep: Keep, ending: Ending, sender: End | None, receiver: End | None, after: int) -> None:
    """After so many bytes, all of which arrive; None: whoever it is sees no end."""

    def collect_and_stay(session: Session) -> None:
        session.collect()
        session.released.wait()

    upstream = keep(Upstream(collect_and_stay))
    proxy = keep(FaultyProxy(upstream.port, up=Faults(end_after=after, ending=ending)))
    with plain(proxy.port) as client:
        client.sendall(DATA[:after])
        session = upstream.session()
        wait_until(lambda: proxy.link().ended, "it ended")
        wait_until(lambda: len(session.received) == after, "all have arrived")
        if receiver is not None:
            assert session.wait_end() is receiver
        if sender is not None:
            assert read_to_end(client) == (b"", sender)
        else:
            client.setblocking(False)
            with pytest.raises(BlockingIOError):
                client.recv(1)
        assert session.ended is receiver
    assert bytes(session.received) == DATA[:after]


def test_after_a_half_close_the_other_direction_goes_on(keep: Keep) -> None:
    upstream = keep(Upstream(reply_after_end(DATA)))
    proxy = keep(FaultyProxy(upstream.port, up=Faults(end_after=5, ending=Ending.HALF_CLOSE)))
    with plain(proxy.port) as client:
        client.sendall(b"these and no more")
        assert read_exactly(client, len(DATA)) == DATA
    assert upstream.session().received == b"these"


# ---- the balancer behind it ----------------------------------------------------------------------


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
def test_all_at_once_on_both_sides(balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool) -> None:
    """Cut small, slow and stalled, each way, before the balancer and behind it: every byte and both ends."""
    question, answer = DATA[:20_000], DATA[-20_000:]
    upstream = keep(Upstream(reply_after_end(answer)))
    small, small_and_stalled = Faults(segment=301), Faults(segment=199, stall=7000)
    behind = keep(FaultyProxy(upstream.port, up=small, down=small_and_stalled))
    lb = balance(behind, plaintext=plaintext)
    slow_and_stalled = Faults(segment=1500, pause=0.001, stall=12_000)
    before = keep(FaultyProxy(lb.port, up=slow_and_stalled, down=small, receive_buffer=4096))
    client = keep(plain(before.port) if plaintext else connect(pki, before.port))
    if isinstance(client, TlsClient):
        client.send(question)
        client.send_close_notify()
    else:
        client.sendall(question)
        client.shutdown(socket.SHUT_WR)
    for proxy, direction in ((before, before.link().up), (behind, behind.link().down)):
        wait_until(lambda: direction.stalled, "it stalls")  # noqa: B023
        assert direction.passed == direction.faults.stall
        proxy.release()
    if isinstance(client, TlsClient):
        assert client.receive_to_end() == (answer, End.CLOSE_NOTIFY)
    else:
        assert read_to_end(client) == (answer, End.FIN)
    assert bytes(upstream.session().received) == question
    assert lb.record().reason == "client_closed"
