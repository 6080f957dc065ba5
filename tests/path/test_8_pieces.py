"""Stage 8, forward: a batch goes out whole or, where the kernel paces, in pieces of two records, and nobody
can tell where one began. Which of the two is the congestion control's doing on the machine that runs this."""

from __future__ import annotations

import queue
import random
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End
from kit.tls_upstream import TlsSession, tls_upstream
from kit.upstreams import Session, Upstream
from kit.waiting import wait_until

from lbcore import UpstreamServer, UpstreamTLS

PIECE = 32768
SIZES = [PIECE * count + more for count in (1, 2, 3, 4, 5, 8, 16) for more in (-1, 0, 1)]
LARGE = 8 * (1 << 20) + 1  # more than the kernel takes for a peer that does not read
STOPS = [1, PIECE + PIECE // 2, 1_000_003, 2_000_001]  # bytes that a reader has when it stops
LOOKS = 10
SMALL_BUFFER = 4096


def pattern(size: int) -> bytes:
    """Bytes that show when some are lost, doubled or out of order."""
    return random.Random(size).randbytes(size)


@dataclass(frozen=True)
class Side:
    """One of the two that the balancer is between.

    Attributes:
        seal: bytes as they are sent.
        send: all of what was sealed; on any thread, where TLS objects are for one only.
        end: says that nothing more comes.
        some: the next bytes, or how the other side ended.
        clean: a proper end, as this one sees it.
    """

    seal: Callable[[bytes], bytes]
    send: Callable[[bytes], None]
    end: Callable[[], None]
    some: Callable[[], bytes | End]
    clean: End

    def receive(self, count: int) -> bytes:
        """At least so many bytes."""
        received = bytearray()
        while len(received) < count:
            part = self.some()
            assert isinstance(part, bytes), f"ended with {part} after {len(received)} bytes"
            received += part
        return bytes(received)

    def receive_to_end(self) -> tuple[bytes, End]:
        received = bytearray()
        while isinstance(part := self.some(), bytes):
            received += part
        return bytes(received), part


def side(of: TlsClient | TlsSession | socket.socket) -> Side:
    if isinstance(of, TlsClient):
        some = partial(of.receive_some, 1 << 16)
        return Side(of.seal, of.sock.sendall, of.send_close_notify, some, End.CLOSE_NOTIFY)
    if isinstance(of, TlsSession):
        sock = of.session.sock
        return Side(of.seal, sock.sendall, of.send_close_notify, of.receive_some, End.CLOSE_NOTIFY)
    end = partial(of.shutdown, socket.SHUT_WR)
    return Side(bytes, of.sendall, end, lambda: of.recv(1 << 16) or End.FIN, End.FIN)


class Between:
    """A balancer with TLS, or without, on either side; the test plays both peers."""

    def __init__(
        self, balance: MakeBalancer, keep: Keep, pki: Pki, ways: tuple[bool, bool], buffer: int | None
    ) -> None:
        self._client_tls, upstream_tls = ways
        self._buffer = buffer
        self._accepted: queue.Queue[Side] = queue.Queue()
        if upstream_tls:
            upstream = keep(tls_upstream(pki, self._take_tls, receive_buffer=buffer))
            server = UpstreamServer(upstream.address, tls=UpstreamTLS(ca=pki.ca.cert))
        else:
            upstream = keep(Upstream(self._take, receive_buffer=buffer))
            server = UpstreamServer(upstream.address)
        self.lb: Balancer = balance(server, plaintext=not self._client_tls)

    @contextmanager
    def connection(self, direction: str) -> Iterator[tuple[Side, Side]]:
        """Who sends in that direction, and who receives."""
        with self._client() as client:
            peers = side(client), self._accepted.get(timeout=10)
            yield peers if direction == "up" else peers[::-1]

    def _client(self) -> TlsClient | socket.socket:
        if not self._client_tls:
            return plain(self.lb.port, receive_buffer=self._buffer)
        context = client_context(self.lb.pki, self.lb.pki.alice)
        return TlsClient(self.lb.port, context, receive_buffer=self._buffer).handshake()

    def _take(self, session: Session) -> None:
        self._accepted.put(side(session.sock))
        session.released.wait()

    def _take_tls(self, tls: TlsSession) -> None:
        self._accepted.put(side(tls))
        tls.session.released.wait()


MakeBetween = Callable[..., Between]


@pytest.fixture(
    params=[(True, False), (False, True), (True, True), (False, False)],
    ids=["tls to plain", "plain to tls", "tls to tls", "plain to plain"],
)
def between(request: pytest.FixtureRequest, balance: MakeBalancer, keep: Keep, pki: Pki) -> MakeBetween:
    return lambda buffer=None: Between(balance, keep, pki, request.param, buffer)


@contextmanager
def sending(sender: Side, data: bytes, *, ends: bool = True) -> Iterator[None]:
    """All of it, and then the end, on another thread."""
    sealed = sender.seal(data)

    def run() -> None:
        sender.send(sealed)
        if ends:
            sender.end()

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(run)
        yield
        sent.result(20)


def end_both(sender: Side, receiver: Side) -> None:
    """The sender has ended already."""
    receiver.end()
    assert sender.receive_to_end() == (b"", sender.clean)


def moved(lb: Balancer) -> tuple[int, int]:
    [row] = lb.engine.connections()
    return row["bytes_in"], row["bytes_out"]


class Still:
    """Whether no byte has moved for some looks in a row."""

    def __init__(self, lb: Balancer) -> None:
        self._lb = lb
        self._last = moved(lb)
        self._looks = 0

    def __call__(self) -> bool:
        now = moved(self._lb)
        self._looks = self._looks + 1 if now == self._last else 0
        self._last = now
        return self._looks >= LOOKS


@pytest.mark.parametrize("direction", ["up", "down"])
def test_sizes_around_whole_pieces(between: MakeBetween, direction: str) -> None:
    """Each on a connection of its own, and the end right behind the last byte."""
    made = between()
    for size in SIZES:
        data = pattern(size)
        with made.connection(direction) as (sender, receiver):
            with sending(sender, data):
                assert receiver.receive_to_end() == (data, receiver.clean)
            end_both(sender, receiver)
    records = made.lb.records.wait(len(SIZES))
    counted = sorted((record.bytes_in, record.bytes_out) for record in records)
    assert counted == [(size, 0) if direction == "up" else (0, size) for size in SIZES]
    assert {record.reason for record in records} == {
        "client_closed" if direction == "up" else "upstream_closed"
    }


@pytest.mark.parametrize("direction", ["up", "down"])
def test_one_size_after_the_other(between: MakeBetween, direction: str) -> None:
    """On one connection, by turns, so that its batches are large by then and each one begins a batch."""
    made = between()
    with made.connection(direction) as (sender, receiver):
        for size in [LARGE, *SIZES]:
            data = pattern(size)
            with sending(sender, data, ends=False):
                assert receiver.receive(size) == data
        sender.end()
        assert receiver.receive_to_end() == (b"", receiver.clean)
        end_both(sender, receiver)


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_reader_that_stops_in_the_middle_and_goes_on(between: MakeBetween, direction: str) -> None:
    """Again and again, until the balancer can take no more: what waits there is part of a piece, and nothing
    overtakes it."""
    made = between(SMALL_BUFFER)
    data = pattern(LARGE)
    with made.connection(direction) as (sender, receiver):
        received = b""
        with sending(sender, data):
            for stop in STOPS:
                received += receiver.receive(stop - len(received))
                wait_until(Still(made.lb), "nothing moves")
                assert max(moved(made.lb)) < LARGE
            rest, end = receiver.receive_to_end()
        assert end is receiver.clean
        assert received + rest == data
        end_both(sender, receiver)
    record = made.lb.record()
    assert (record.bytes_in, record.bytes_out) == ((LARGE, 0) if direction == "up" else (0, LARGE))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_an_end_that_waits_behind_the_last_bytes(between: MakeBetween, direction: str) -> None:
    """As much as fits between the two, and a few pieces less: with TLS the end comes in the same batch as the
    last bytes, of which some wait in the balancer."""
    made = between(SMALL_BUFFER)
    with made.connection(direction) as (sender, receiver):
        with sending(sender, pattern(LARGE)):
            wait_until(Still(made.lb), "nothing moves")
            most = max(moved(made.lb))
            assert receiver.receive_to_end()[1] is receiver.clean
        end_both(sender, receiver)
    made.lb.wait_quiet()
    for size in range(max(1, most - 4 * PIECE), most + 1, PIECE // 2):
        data = pattern(size)
        with made.connection(direction) as (sender, receiver):
            with sending(sender, data):
                wait_until(Still(made.lb), "nothing moves")
                assert receiver.receive_to_end() == (data, receiver.clean)
            end_both(sender, receiver)
        made.lb.wait_quiet()


@pytest.mark.parametrize("size", [PIECE - 1, PIECE, PIECE + 1, 4 * PIECE - 1, 4 * PIECE, 4 * PIECE + 1])
def test_both_stop_and_go_on(between: MakeBetween, size: int) -> None:
    """Each sends that much at a time and reads nothing until neither can send any more."""
    made = between(SMALL_BUFFER)
    data = pattern(size) * (LARGE // size)
    with made.connection("up") as (client, upstream):
        with sending(client, data, ends=False), sending(upstream, data, ends=False):
            wait_until(Still(made.lb), "nothing moves")
            assert max(moved(made.lb)) < len(data)
            for one in (client, upstream):
                assert one.receive(len(data)) == data
        client.end()
        assert upstream.receive_to_end() == (b"", upstream.clean)
        end_both(client, upstream)
