"""Clients and upstreams that come and go in every way, all at once: afterwards nothing is left."""

from __future__ import annotations

import random
import socket
import ssl
import threading
import time

import pytest
from kit.clients import TlsClient, client_context, plain
from kit.fixtures import Keep, MakeBalancer
from kit.leaks import descriptors
from kit.pki import Pki
from kit.sockets import reset
from kit.upstreams import Refuser, Session, Upstream, echo
from kit.waiting import wait_until

from lbcore import RateLimitManager

SECONDS = 6.0
THREADS = 8


def moody(session: Session) -> None:
    """An upstream that mostly echoes."""
    mood = random.Random(len(session.received) + session.sock.fileno() + time.monotonic_ns()).random()
    if mood < 0.1:
        reset(session.sock)
    elif mood < 0.2:
        session.sock.shutdown(socket.SHUT_WR)
        session.collect()
    elif mood < 0.3:
        session.sock.sendall(b"#")
        session.sock.close()
    else:
        echo(session)


class Visitor(threading.Thread):
    """Visits until the time is up; `wrong` holds what came back different from what was sent."""

    def __init__(
        self, seed: int, until: float, tls_port: int, plain_port: int, contexts: list[ssl.SSLContext]
    ) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(seed)
        self._until = until
        self._ports = tls_port, plain_port
        self._contexts = contexts
        self.visits = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        while time.monotonic() < self._until:
            self.visits += 1
            try:
                if self._random.random() < 0.7:
                    self._visit_tls()
                else:
                    self._visit_plain()
            except (OSError, ssl.SSLError, AssertionError):
                continue  # refused, reset or cut short: that is what this is about

    def _visit_tls(self) -> None:
        with TlsClient(self._ports[0], self._random.choice(self._contexts)) as client:
            kind = self._random.random()
            if kind < 0.1:
                client.sock.sendall(client.first_flight()[: self._random.randrange(1, 300)])
                return
            if kind < 0.15:
                reset(client.sock)
                return
            client.handshake()
            sent = self._random.randbytes(self._random.choice((1, 100, 16384, 50_000)))
            client.send(sent)
            if kind < 0.3:
                client.reset()
            elif kind < 0.4:
                client.send_fin()
                self._check(client.receive_to_end()[0], sent)
            elif kind < 0.6:
                client.send_close_notify()
                self._check(client.receive_to_end()[0], sent)
            else:
                self._check(client.receive(len(sent)), sent)

    def _visit_plain(self) -> None:
        with plain(self._ports[1]) as client:
            sent = self._random.randbytes(self._random.choice((1, 100, 20_000)))
            client.sendall(sent)
            if self._random.random() < 0.3:
                reset(client)
                return
            client.shutdown(socket.SHUT_WR)
            received = b""
            while part := client.recv(65536):
                received += part
            self._check(received, sent)

    def _check(self, received: bytes, sent: bytes) -> None:
        """A moody upstream may cut an answer short or say `#`; it never says anything else."""
        if received != b"#" and not sent.startswith(received):
            self.wrong.append(f"{len(received)} bytes for {len(sent)}")


@pytest.mark.slow
def test_churn(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstreams = [keep(Upstream(moody)) for _ in range(3)]
    dead = keep(Refuser())
    lb = balance(*upstreams, dead, app={"half_close_timeout": 2.0, "passive_eject": 0.2})
    limits = lb.policy.limit(pki.alice, "web", limits=RateLimitManager("alice", max_open=6))
    lb.policy.allow(pki.bob, "web")
    raw = lb.add("raw", *upstreams, dead, plaintext=True, max_connections=20)
    contexts = [
        client_context(pki, identity) for identity in (pki.alice, pki.alice, pki.bob, pki.client(), None)
    ]
    before = descriptors()
    until = time.monotonic() + SECONDS
    visitors = [Visitor(seed, until, lb.port, raw.port, contexts) for seed in range(THREADS)]
    for visitor in visitors:
        visitor.start()
    while time.monotonic() < until:
        lb.engine.set_policy(None)
        lb.engine.connections()
        time.sleep(0.1)  # the pace of the policy changes
    for visitor in visitors:
        visitor.join(30)
    assert [wrong for visitor in visitors for wrong in visitor.wrong] == []
    assert sum(visitor.visits for visitor in visitors) > 100
    lb.wait_quiet(10)
    assert limits.open == 0
    pipes_kept_by_workers = 2 * 2 * 8
    wait_until(lambda: descriptors() <= before + pipes_kept_by_workers, "descriptors are back", timeout=10)
    stats = lb.engine.stats()
    accepted = sum(app["accepted"] for app in stats["applications"].values())
    ended = sum(sum(app["ended"].values()) for app in stats["applications"].values())
    assert accepted == ended
    assert len(lb.records.wait(ended)) == ended
    assert all(worker["stamp_age_s"] < 5 for worker in stats["workers"])
