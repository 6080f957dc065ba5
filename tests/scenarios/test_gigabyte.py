"""A gigabyte each way through TLS, equal to the last bit."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
from kit.clients import client_context
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.upstreams import Session, Upstream

MIB = 1 << 20
BLOCKS = 1024
NOISE = random.Random(1).randbytes(MIB - 8)


def send_blocks(send: Callable[[Any], object]) -> str:
    """Sends 1 GiB in which no two blocks are equal; its SHA-256."""
    digest = hashlib.sha256()
    block = bytearray(8) + NOISE
    for number in range(BLOCKS):
        block[:8] = number.to_bytes(8, "big")
        send(block)
        digest.update(block)
    return digest.hexdigest()


def receive_blocks(receive_into: Callable[[memoryview], int]) -> tuple[str, int]:
    """SHA-256 and length of all that comes."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(1 << 18))
    length = 0
    while True:
        got = receive_into(buffer)
        if got == 0:
            return digest.hexdigest(), length
        digest.update(buffer[:got])
        length += got


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_gigabyte_each_way(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    sums: dict[str, Any] = {}

    def download(session: Session) -> None:
        sums["sent down"] = send_blocks(session.sock.sendall)

    def upload(session: Session) -> None:
        sums["received up"] = receive_blocks(session.sock.recv_into)

    lb = balance(keep(Upstream(download)))
    lb.policy.allow(pki.alice, "web", "up")
    up = lb.add("up", keep(Upstream(upload)))
    context = client_context(pki, pki.alice)

    def connect(port: int) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", port), timeout=60)
        return context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False)

    def do_download() -> None:
        with connect(lb.port) as client:
            sums["received down"] = receive_blocks(client.recv_into)

    def do_upload() -> None:
        with connect(up.port) as client:
            sums["sent up"] = send_blocks(client.sendall)
            client.unwrap().close()

    threads = [threading.Thread(target=work, daemon=True) for work in (do_download, do_upload)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    down, going_up = lb.record(app="web", timeout=30), lb.record(app="up", timeout=30)
    assert sums["received down"] == (sums["sent down"], BLOCKS * MIB)
    assert sums["received up"] == (sums["sent up"], BLOCKS * MIB)
    assert (down.bytes_out, down.reason) == (BLOCKS * MIB, "upstream_closed")
    assert (going_up.bytes_in, going_up.reason) == (BLOCKS * MIB, "client_closed")
