"""Moving: every byte in order, and less than 256 KiB for both directions, whatever the peers do."""

import contextlib
import itertools
import socket
from collections.abc import Iterator
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kit.congestion import set_congestion_control
from kit.waiting import wait_until

KIB = 1024
BOUND = 256 * KIB


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """A peer's end and the mover's end of one TCP connection, with much room in the kernel towards the mover
    and little towards the peer, so that what a peer does not read waits in the mover."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * KIB)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * KIB)
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * KIB)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 512 * KIB)
        peer.connect(server.getsockname())
        mover, _ = server.accept()
    for sock in (peer, mover):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer, mover


class Peer:
    """Who is at the far end of a leg: sends numbered bytes and reads when it likes."""

    def __init__(self, sock: socket.socket, seed: int) -> None:
        self.sock = sock
        self.data = Random(seed).randbytes(4096 * KIB)
        self.sent = 0
        self.received = bytearray()

    def push(self) -> None:
        """Sends as much as is taken."""
        try:
            while self.sent < len(self.data):
                self.sent += self.sock.send(memoryview(self.data)[self.sent :])
        except BlockingIOError:
            return

    def read(self, length: int) -> None:
        """Reads at most that much."""
        try:
            self.received += self.sock.recv(length)
        except BlockingIOError:
            return


class Between:
    """A mover between two peers."""

    def __init__(self, probes: ModuleType, pipes_max: int) -> None:
        client, self.near_client = tcp_pair()
        upstream, self.near_upstream = tcp_pair()
        self.client, self.upstream = Peer(client, 1), Peer(upstream, 2)
        self.mover: Any = probes.Mover(
            self.near_client.fileno(), self.near_upstream.fileno(), pipes_max=pipes_max
        )

    def close(self) -> None:
        """Of the mover first: it borrows the sockets."""
        self.mover = None
        for sock in (self.near_client, self.near_upstream, self.client.sock, self.upstream.sock):
            sock.close()


@pytest.fixture(params=[0, 2], ids=["copied", "spliced"])
def between(request: pytest.FixtureRequest, probes: ModuleType) -> Iterator[Between]:
    made = Between(probes, request.param)
    yield made
    made.close()


def stall(between: Between, *directions: bool) -> int:
    """Bytes flow until the batches are large; then nobody reads any more. The most that was ever held."""
    most = 0
    for count in range(200):
        for up in directions:
            sender, reader = between.client, between.upstream
            if not up:
                sender, reader = reader, sender
            sender.push()
            between.mover.move(up=up)
            if count < 100 and len(reader.received) < 1024 * KIB:
                reader.read(1024 * KIB)
            most = max(most, between.mover.held)
    return most


def test_both_directions_stalled(between: Between) -> None:
    assert 128 * KIB < stall(between, True, False) < BOUND


def test_a_stalled_direction_leaves_room_for_the_other(between: Between) -> None:
    alone = stall(between, True)
    assert alone > 192 * KIB, "a pipe may hold more than a batch"
    between.upstream.push()
    sent = between.upstream.sent
    while len(between.client.received) < sent:
        between.mover.move(up=False)
        assert between.mover.held < BOUND
        between.client.read(sent)
    assert bytes(between.client.received) == between.upstream.data[:sent]


def test_quiet_directions_keep_no_pipe(between: Between) -> None:
    stall(between, True, False)
    between.mover.quiet()
    assert between.mover.pipes_out == 0
    assert 64 * KIB < between.mover.held < BOUND


def test_what_goes_from_a_pipe_to_a_chunk_fits_beside_the_other_chunk(between: Between) -> None:
    """A chunk may have more room than the pipe held, and the other direction's has more than it needs."""
    while not 13 * KIB < between.mover.held < 27 * KIB:
        part = between.upstream.data[between.upstream.sent :][: 20 * KIB]
        between.upstream.sent += between.upstream.sock.send(part)
        between.mover.move(up=False)
        while 0 < between.mover.held <= 14 * KIB:
            between.client.read(KIB)
            between.mover.move(up=False)
    stall(between, True)
    between.mover.quiet()
    assert 128 * KIB < between.mover.held < BOUND


@pytest.mark.parametrize(("from_tls", "to_tls"), [(False, False), (False, True), (True, False), (True, True)])
def test_how_much_may_be_read_while_nothing_waits(probes: ModuleType, from_tls: bool, to_tls: bool) -> None:
    room = probes.room_to_read(probes.Outbox(), from_tls=from_tls, to_tls=to_tls)
    assert room == (183_638 if from_tls and to_tls else 192 * KIB)


@pytest.mark.parametrize("between", [0], ids=["copied"], indirect=True)
def test_reads_grow_while_they_are_filled(between: Between) -> None:
    sizes = [size * KIB for size in (16, 32, 64, 128, 192)]
    between.client.push()
    wait_until(
        lambda: len(between.near_client.recv(sum(sizes), socket.MSG_PEEK)) == sum(sizes), "all of it is there"
    )
    read = [0]
    while read[-1] < sum(sizes):
        between.mover.move(up=True)
        between.upstream.read(1024 * KIB)
        if between.mover.moved[0] > read[-1]:
            read.append(between.mover.moved[0])
    assert [after - before for before, after in itertools.pairwise(read)] == sizes


@example(15 * KIB, 0, True, False)  # what TLS answers still fits
@example(15 * KIB + 1, 0, True, False)  # it does not, and the chunk grows
@example(93 * KIB + 1, 0, True, True)
@example(197 * KIB + 1, 0, True, True)  # it cannot grow
@given(st.integers(0, 208 * KIB), st.integers(0, 208 * KIB), st.booleans(), st.booleans())
def test_there_is_room_for_whatever_becomes_of_what_is_read(
    probes: ModuleType, waiting: int, sent: int, from_tls: bool, to_tls: bool
) -> None:
    """The other peer takes nothing of it and wants the smallest records there are (512 bytes, which OpenSSL
    grants), and TLS has to answer this one, which does not read either."""
    owed, read = probes.Outbox(), probes.Outbox()
    assert owed.append(b"x" * waiting)
    if waiting:
        owed.sent(min(sent, waiting))
    room = probes.room_to_read(owed, from_tls=from_tls, to_tls=to_tls)
    assert room >= (16 * KIB if not from_tls else 4 * KIB), "it goes on"
    rest_of_record = 16 * KIB if from_tls else 0
    sealing = ((room + rest_of_record) // 512 + 1) * 22 + 4 * KIB if to_tls else 0
    assert read.append(b"x" * (room + rest_of_record + sealing))
    if from_tls and owed.room:
        owed.append(b"y" * 11 * KIB)  # beyond the largest it is refused, and the connection ended
    assert owed.room + read.room <= 234 * KIB


@pytest.mark.parametrize(
    ("owed", "answers", "taken"),
    [
        (0, 4 * KIB, True),
        (0, 10 * KIB, True),
        (1, 11 * KIB, True),
        (1, 11 * KIB + 1, False),
        (197 * KIB, 11 * KIB, True),
        (197 * KIB + 1, 11 * KIB, False),
    ],
)
def test_what_tls_may_answer_to_who_does_not_read(
    probes: ModuleType, owed: int, answers: int, taken: bool
) -> None:
    """No more than the other direction left room for, and what was owed before arrives all the same."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        waiting = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                waiting += near.send(b"x" * KIB)
        mover = probes.Mover(-1, near.fileno(), pipes_max=0)
        if owed:
            mover.give(b"x" * owed, piecemeal=False)
        refusal = mover.answer(answers)
        assert refusal == (None if taken else "key updates are asked for and not read")
        waiting += owed + (answers if taken else 0)
        while waiting > 0:
            waiting -= len(far.recv(waiting))
            if mover.held > 0:
                mover.move(up=True)
        assert mover.held == 0
        far.setblocking(False)
        with pytest.raises(BlockingIOError):
            far.recv(1)


@pytest.mark.parametrize(("congestion", "paced"), [("cubic", False), ("bbr", True)])
def test_who_is_sent_little_at_once(between: Between, congestion: str, paced: bool) -> None:
    set_congestion_control(between.near_upstream, congestion)
    assert between.mover.piecemeal == (False, False)
    stall(between, True)
    assert between.mover.piecemeal == (False, paced)


@pytest.mark.parametrize(
    ("piecemeal", "sizes"), [(False, [100 * KIB]), (True, [32 * KIB, 32 * KIB, 32 * KIB, 4 * KIB])]
)
def test_what_little_at_once_is(probes: ModuleType, piecemeal: bool, sizes: list[int]) -> None:
    """By a socket that keeps apart what was sent apart."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    data = Random(1).randbytes(100 * KIB)
    with near, far:
        near.setblocking(False)
        far.setblocking(False)
        mover = probes.Mover(-1, near.fileno(), pipes_max=0)
        mover.give(data, piecemeal=piecemeal)
        packets = [far.recv(len(data)) for _ in sizes]
    assert [len(packet) for packet in packets] == sizes
    assert b"".join(packets) == data


@pytest.mark.parametrize("seed", range(10))
def test_within_the_bound_and_in_order_whatever_the_peers_do(between: Between, seed: int) -> None:
    random = Random(seed)
    peers = (between.client, between.upstream)
    for _ in range(1500):
        match random.randrange(7):
            case 0 | 1:
                random.choice(peers).push()
            case 2:
                random.choice(peers).read(random.choice([1, 1000, 50 * KIB, 500 * KIB]))
            case 3 if random.random() < 0.1:
                between.mover.quiet()
            case _:
                between.mover.move(up=random.random() < 0.5)
        assert between.mover.held < BOUND
    for _ in range(100_000):
        for up, reader in ((True, between.upstream), (False, between.client)):
            between.mover.move(up=up)
            reader.read(1024 * KIB)
        if (len(between.upstream.received), len(between.client.received)) == tuple(p.sent for p in peers):
            break
    assert bytes(between.upstream.received) == between.client.data[: between.client.sent]
    assert bytes(between.client.received) == between.upstream.data[: between.upstream.sent]
    assert between.mover.moved == (between.client.sent, between.upstream.sent)
    assert between.mover.held == 0
