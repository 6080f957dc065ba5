"""Random and mutated first bytes: each connection ends with a reason, and nothing leaks."""

from __future__ import annotations

import contextlib
import random
import ssl

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect, plain
from kit.fixtures import MakeBalancer
from kit.memory import anonymous_bytes
from kit.pki import Pki
from kit.transfers import transfers
from kit.upstreams import Upstream

ROUNDS = 400
TRANSFERS = 8
BROKEN = 500
KINDS = 5  # of broken handshakes
GARBAGE, NOBODY, ROGUE, RESET, SEALED_BADLY = range(KINDS)
GONE = (ConnectionResetError, BrokenPipeError, ssl.SSLEOFError)
REASONS = {
    "not_tls", "handshake_failed", "handshake_too_big", "handshake_timeout", "tls_version", "client_gone",
    "no_certificate", "unknown_ca", "bad_certificate",
}  # fmt: skip


def hello(lb: Balancer) -> bytes:
    with TlsClient(lb.port, client_context(lb.pki, lb.pki.alice)) as client:
        return client.first_flight()


def mutations(seed: int, good: bytes) -> bytes:
    """One way to be wrong."""
    chance = random.Random(seed)
    kind = chance.randrange(6)
    data = bytearray(good)
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 2000))
    if kind == 1:
        return b"\x16\x03" + chance.randbytes(chance.randrange(1, 3000))
    if kind == 2:
        return bytes(data[: chance.randrange(1, len(data))])
    if kind == 3:
        for _ in range(chance.randrange(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif kind == 4:
        at = chance.randrange(len(data))
        data[at:at] = chance.randbytes(chance.randrange(1, 64))
    else:
        data += chance.randbytes(chance.randrange(1, 20_000))
    return bytes(data)


@pytest.mark.parametrize("seed", range(3))
def test_first_bytes(balance: MakeBalancer, upstream: Upstream, pki: Pki, seed: int) -> None:
    lb = balance(upstream, engine={"handshake_timeout": 0.5})
    good = hello(lb)
    for number in range(ROUNDS):
        with plain(lb.port) as client, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(mutations(seed * ROUNDS + number, good))
    records = lb.records.wait(ROUNDS, timeout=20)
    assert {record.reason for record in records} <= REASONS
    assert {record.stage for record in records} == {"handshake"}
    lb.wait_quiet()
    assert upstream.accepted == 0
    with connect(pki, lb.port) as client:
        client.echo(b"still serving")


def test_bytes_after_every_flight(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """Garbage in place of the client's second flight, and after the handshake."""
    lb = balance(upstream, engine={"handshake_timeout": 0.5})
    chance = random.Random(4)
    for number in range(100):
        with TlsClient(lb.port, client_context(pki, pki.alice)) as client:
            with contextlib.suppress(OSError):
                if number % 2:
                    client.handshake()
                else:
                    client.sock.sendall(client.first_flight())
                    client.sock.recv(10_000)
                client.sock.sendall(b"\x17\x03\x03\x00\x50" + chance.randbytes(80))
                client.sock.sendall(chance.randbytes(chance.randrange(1, 3000)))
                client.receive_to_end()
            client.reset()
    assert len(lb.records.wait(100)) == 100
    lb.wait_quiet()


@pytest.mark.memory
def test_refusals_do_not_cost_memory(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream, engine={"handshake_timeout": 0.5})
    good = hello(lb)

    def many() -> int:
        for number in range(300):
            with plain(lb.port) as client, contextlib.suppress(ConnectionResetError, BrokenPipeError):
                client.sendall(mutations(number, good))
        lb.wait_quiet()
        return anonymous_bytes()

    many()
    first = many()
    assert many() - first < 2 << 20


def broken(lb: Balancer, kind: int, garbage: bytes, contexts: dict[int, ssl.SSLContext]) -> None:
    """One handshake that fails."""
    if kind == GARBAGE:
        with plain(lb.port) as sock, contextlib.suppress(*GONE):
            sock.sendall(garbage)
        return
    with TlsClient(lb.port, contexts[kind]) as client, contextlib.suppress(*GONE, ssl.SSLError):
        if kind == RESET:
            client.sock.sendall(client.first_flight())
            client.reset()
        elif kind == SEALED_BADLY:  # the server cannot decrypt what comes for a second flight
            client.sock.sendall(client.first_flight() + b"\x17\x03\x03\x00\x40" + bytes(64))
            client.sock.recv(1 << 16)
        else:
            client.handshake()
            client.receive_to_end()


def test_broken_handshakes_beside_running_transfers(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """Nothing that one connection did wrong (an error queue, a stale event, a descriptor that came back) is
    held against another."""
    lb = balance(upstream)
    good = hello(lb)
    honest = client_context(pki, pki.alice)
    contexts = {
        NOBODY: client_context(pki, None),
        ROGUE: client_context(pki, pki.rogue.issue("mallory")),
        RESET: honest,
        SEALED_BADLY: honest,
    }
    with transfers(pki, lb.port, TRANSFERS):
        for number in range(BROKEN):
            broken(lb, number % KINDS, mutations(number, good), contexts)
    lb.records.wait(BROKEN + TRANSFERS + 1)
    lb.records.wait(TRANSFERS, reason="client_closed")
    assert len(lb.records.all(event="conn.deny", reason="no_certificate")) == BROKEN // KINDS
