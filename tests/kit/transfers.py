"""Transfers that run beside what a test does, and must not notice it."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kit.clients import connect
from kit.sockets import End

if TYPE_CHECKING:
    from kit.pki import Pki

_PART_MAX = 60_000


@contextlib.contextmanager
def transfers(pki: Pki, port: int, count: int) -> Iterator[None]:
    """That many clients of an echo server, each busy until the block is left. Then every one of them must
    have got back what it sent, by its SHA-256, and a clean end."""
    stop = threading.Event()
    begun = threading.Semaphore(0)

    def run(number: int) -> int:
        chance, moved = random.Random(number), 0
        sent, received = hashlib.sha256(), hashlib.sha256()
        with connect(pki, port) as client:
            while not stop.is_set():
                part = chance.randbytes(chance.randrange(1, _PART_MAX))
                client.send(part)
                sent.update(part)
                received.update(client.receive(len(part)))
                moved += len(part)
                begun.release()
            client.send_close_notify()
            assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
        assert sent.digest() == received.digest(), f"transfer {number} came back changed"
        return moved

    with ThreadPoolExecutor(count) as pool:
        running = [pool.submit(run, number) for number in range(count)]
        try:
            for _ in range(count):
                begun.acquire(timeout=10)
            yield
        finally:
            stop.set()
        assert all(transfer.result(timeout=20) > 0 for transfer in running)
