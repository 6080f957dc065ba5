"""Many applications with many upstreams: all of them serve, and an upstream nobody uses costs nothing but
memory."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from kit.clients import Client, PlainClient, connect
from kit.fixtures import Keep, MakeBalancer
from kit.leaks import core_threads, descriptors
from kit.memory import anonymous_bytes
from kit.pki import Pki
from kit.upstreams import Upstream

from lbcore import UpstreamServer, UpstreamTLS

APPLICATIONS, UPSTREAMS = 200, 50


@pytest.mark.slow
def test_many_applications_with_many_upstreams(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Every second one speaks TLS."""
    servers: list[Upstream] = [keep(Upstream()) for _ in range(UPSTREAMS)]
    lb = balance(servers[0])
    names = [f"app-{number}" for number in range(APPLICATIONS)]
    lb.policy.allow(pki.alice, *names)
    before = descriptors()
    lb.add("small", servers[0], plaintext=True)
    listener_takes = descriptors() - before
    threads, files, everybody = core_threads(), descriptors(), threading.active_count()
    listeners = [
        lb.add(name, *(UpstreamServer(server.address) for server in servers), plaintext=number % 2 == 0)
        for number, name in enumerate(names)
    ]
    assert descriptors() == files + APPLICATIONS * listener_takes
    assert (core_threads(), threading.active_count()) == (threads, everybody)
    clients: list[Client] = []
    for number, listener in enumerate(listeners):
        client = PlainClient(listener.port) if number % 2 == 0 else connect(pki, listener.port)
        clients.append(keep(client))
        client.echo(b"through application %d" % number)
    stats = lb.engine.stats()
    assert stats["open"] == APPLICATIONS
    assert [stats["applications"][name]["open"] for name in names] == [1] * APPLICATIONS
    opened = Counter(row["app"] for row in lb.engine.connections())
    assert opened == dict.fromkeys(names, 1)
    assert [
        name for name in core_threads() if "authorize" not in name
    ] == threads  # those come with questions
    for client in clients:
        client.close()
    records = lb.records.wait(APPLICATIONS)
    assert {record.reason for record in records} == {"client_closed"}
    assert Counter(record.app for record in records) == opened


@pytest.mark.memory
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_an_upstream_that_nobody_uses_is_small(
    balance: MakeBalancer, keep: Keep, pki: Pki, secure: bool
) -> None:
    """What is loaded to speak TLS to them is there once for an application."""
    lb = balance(keep(Upstream()))

    def grow(name: str) -> None:
        tls = [UpstreamTLS(ca=pki.ca.cert) if secure else None for _ in range(UPSTREAMS)]
        servers = [UpstreamServer(f"127.0.1.{host}:9", tls=one) for host, one in enumerate(tls)]
        lb.add(name, *servers, plaintext=True)

    for number in range(20):  # what is not used yet of the memory that there is
        grow(f"warm-{number}")
    before = anonymous_bytes()
    for number in range(APPLICATIONS):
        grow(f"app-{number}")
    assert (anonymous_bytes() - before) / APPLICATIONS / UPSTREAMS < 1024 + (512 if secure else 0)
