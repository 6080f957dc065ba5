"""Every deadline is kept to half a second: never early, and not late by more than that.

The worker's own clock is what counts, as its record tells it: how busy the machine is with the tests is
not the balancer's fault.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from kit.balancer import Balancer, Stopwatch
from kit.clients import TlsClient, client_context, connect, plain
from kit.fixtures import Keep, MakeBalancer, Options
from kit.pki import Pki
from kit.records import RecordClient
from kit.sockets import End
from kit.upstreams import Blackhole, Session, Upstream, hold, source

import lbcore

DEADLINE = 0.6
TOLERANCE = 0.5
DOTS = 15


def is_exact(milliseconds: float, seconds: float = DEADLINE) -> bool:
    return seconds <= milliseconds / 1000 < seconds + TOLERANCE


def busy(session: Session) -> None:
    """Talks as long as somebody listens, and hears what is said."""
    listening = threading.Thread(target=session.collect, daemon=True)
    listening.start()
    try:
        while not session.released.wait(0.05):
            session.sock.sendall(b".")
    except OSError:
        pass
    listening.join(10)


# ---- before the verdict --------------------------------------------------------------------------


def silence(client: TlsClient) -> Iterator[bytes]:
    yield from ()


def drip(client: TlsClient) -> Iterator[bytes]:
    for byte in client.first_flight():
        yield bytes([byte])


def half(client: TlsClient) -> Iterator[bytes]:
    yield client.first_flight()


@pytest.mark.parametrize("says", [silence, drip, half])
def test_handshake(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, says: Callable[[TlsClient], Iterator[bytes]]
) -> None:
    """Counted from accept, whatever comes."""
    lb = balance(upstream, engine={"handshake_timeout": DEADLINE})
    with TlsClient(lb.port, client_context(pki, pki.alice)) as client:
        for part in says(client):
            try:
                client.sock.sendall(part)
            except (ConnectionResetError, BrokenPipeError):
                break
            time.sleep(0.03)  # the drip
        assert is_exact(lb.record(reason="handshake_timeout").duration_ms)


def test_authorize(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    release = threading.Event()

    def stuck(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
        release.wait(10)
        return lbcore.Verdict(True)

    lb = balance(upstream, authorize=stuck, engine={"authorize_timeout": DEADLINE})
    with connect(pki, lb.port):
        assert is_exact(lb.record(reason="authz_timeout").duration_ms)
    release.set()
    assert upstream.accepted == 0


def test_max_wait(balance: MakeBalancer, keep: Keep, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    lb.policy.limit(
        pki.alice, "web",
        limits=lbcore.RateLimitManager("alice", max_open=1, on_exceed="delay", max_wait=DEADLINE),
    )  # fmt: skip
    with connect(pki, lb.port) as first:
        first.echo(b"x")
        with connect(pki, lb.port):
            record = lb.record(reason="limit_wait")
    assert record.waited_ms is not None
    assert is_exact(record.waited_ms)


def test_connect(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Each attempt has its own."""
    lb = balance(
        keep(Blackhole()), keep(Blackhole()), app={"connect_timeout": DEADLINE, "connect_attempts": 2}
    )
    with connect(pki, lb.port):
        record = lb.record(reason="connect_failed")
    assert record.attempts == 2
    assert 2 * DEADLINE <= record.duration_ms / 1000 < 2 * (DEADLINE + TOLERANCE)


# ---- while it is forwarded -----------------------------------------------------------------------


@contextmanager
def open_connection(lb: Balancer, pki: Pki, *, plaintext: bool) -> Iterator[TlsClient | socket.socket]:
    with ExitStack() as stack:
        client = stack.enter_context(plain(lb.port) if plaintext else connect(pki, lb.port))
        lb.wait_open(1)
        yield client


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls", "plaintext"])
@pytest.mark.parametrize("app", [{}, {"tcp_keepalive": 1}], ids=["no traffic", "keep-alives only"])
def test_idle(balance: MakeBalancer, upstream: Upstream, pki: Pki, app: Options, plaintext: bool) -> None:
    """The kernel's keep-alives are no sign of life."""
    seconds = 1.3 if app else DEADLINE
    lb = balance(upstream, plaintext=plaintext, app={"idle_timeout": seconds, **app})
    with open_connection(lb, pki, plaintext=plaintext):
        assert is_exact(lb.record(reason="idle").duration_ms, seconds)


def nothing_new(client: RecordClient) -> Iterator[bytes]:
    while True:
        yield client.seal(b"")


def new_keys(client: RecordClient) -> Iterator[bytes]:
    while True:
        yield client.sealed_update(wants_answer=False)


def one_record(client: RecordClient) -> Iterator[bytes]:
    for byte in client.seal(bytes(1000)):
        yield bytes([byte])


@pytest.mark.parametrize("says", [nothing_new, new_keys, one_record])
def test_idle_without_payload(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, says: Callable[[RecordClient], Iterator[bytes]]
) -> None:
    """Bytes that never become payload are no traffic."""
    lb = balance(upstream, app={"idle_timeout": DEADLINE})
    with RecordClient(pki, lb.port) as client:
        lb.wait_open(1)
        for part in says(client):
            try:
                client.sock.sendall(part)
            except (ConnectionResetError, BrokenPipeError):
                break
            time.sleep(0.05)  # the drip
        assert is_exact(lb.record(reason="idle").duration_ms)


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_half_close_after_the_last_byte(balance: MakeBalancer, keep: Keep, pki: Pki, who: str) -> None:
    """Extended while bytes flow, whoever sends them."""
    last = []

    def trickle(session: Session) -> None:
        for _ in range(DOTS):
            session.sock.sendall(b".")
            time.sleep(0.05)
        last.append(time.monotonic())
        hold(session)

    upstream = keep(Upstream(trickle if who == "client" else source(b"")))
    lb = balance(upstream, app={"half_close_timeout": DEADLINE, "idle_timeout": 60.0})
    with open_connection(lb, pki, plaintext=False) as client:
        assert isinstance(client, TlsClient)
        if who == "client":
            client.send_close_notify()
            client.receive(DOTS)
        else:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
            for _ in range(DOTS):
                client.send(b".")
                time.sleep(0.05)
            last.append(time.monotonic())
        record = lb.record(reason="half_close_timeout")
        assert time.monotonic() - last[0] < DEADLINE + TOLERANCE + 0.2  # of the gathering of records
    assert record.duration_ms / 1000 >= (DOTS - 1) * 0.05 + DEADLINE


def test_lifetime(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Traffic both ways does not extend it."""
    lb = balance(keep(Upstream(busy)))
    lb.policy.limit(pki.alice, "web", limits=lbcore.RateLimitManager("alice", max_lifetime=DEADLINE))
    with open_connection(lb, pki, plaintext=False) as client:
        assert isinstance(client, TlsClient)
        end = client.receive_to_end()[1]
        assert end is End.RESET
        assert is_exact(lb.record(reason="max_lifetime").duration_ms)


def test_drain(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Who is busy ends with it, too."""
    lb = balance(keep(Upstream(busy)))
    with open_connection(lb, pki, plaintext=False):
        watch = Stopwatch()
        assert lb.engine.stop(drain=DEADLINE) is False
        assert is_exact(watch.seconds * 1000)
    assert lb.record().reason == "drained"
