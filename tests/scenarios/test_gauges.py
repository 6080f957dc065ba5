"""What the engine counts is what the kernel has: no connection is counted twice, forgotten or left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End
from kit.tcp import HALF_CLOSED, State, sockets
from kit.upstreams import Blackhole, Refuser, Upstream
from kit.waiting import wait_until

import lbcore
from lbcore import RateLimitManager, Verdict

EACH = 4  # connections in each stage
DIALLED = (State.ESTABLISHED, State.SYN_SENT)


class Gated:
    """An authorizer that lets everybody in, for one application once its gate is open."""

    def __init__(self, application: str) -> None:
        self.opened = threading.Event()
        self._application = application

    def __call__(self, peer: lbcore.PeerCertificate, application: str) -> Verdict:
        if application == self._application:
            self.opened.wait(30)
        return Verdict(True, client="alice")

    def close(self) -> None:
        self.opened.set()


@pytest.fixture
def crowd() -> Iterator[dict[str, list[TlsClient]]]:
    """Clients by where they are held up; whoever is left is closed."""
    clients: dict[str, list[TlsClient]] = {}
    yield clients
    for some in clients.values():
        for client in some:
            client.close()


def counted(lb: Balancer) -> dict[str, int]:
    """The gauges, by application."""
    stats = lb.engine.stats()
    counts = {"all": stats["open"] + stats["unauthenticated"]}
    for application in lb.applications:
        counts[f"{application.name} open"] = application.open_connections
        for server in application.upstreams:
            counts[f"{application.name} in flight"] = server.in_flight
    return counts


def seen(lb: Balancer, ports: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    """The same from the kernel's table; `others`: who dials those upstreams too."""
    counts = {"all": 0}
    for application in lb.applications:
        served = len(sockets(local=ports[application.name]))
        counts["all"] += served
        counts[f"{application.name} open"] = served
        for server in application.upstreams:
            port = int(server.address.rpartition(":")[2])
            dialled = len(sockets(remote=port, states=DIALLED)) - others[application.name]
            counts[f"{application.name} in flight"] = dialled
    return counts


def test_gauges_are_what_the_kernel_says(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, pki: Pki, crowd: dict[str, list[TlsClient]]
) -> None:
    """With connections held up in every stage; then with some of them gone, then with all."""
    hole, gate = keep(Blackhole()), keep(Gated("asked"))
    fillers = len(sockets(remote=hole.port, states=DIALLED))
    patience = {"handshake_timeout": 60.0, "authorize_timeout": 60.0}
    lb = balance(upstream, authorize=gate, engine=patience)
    slots = RateLimitManager("slots", max_open=EACH, on_exceed="delay", max_wait=60.0, scope="application")
    listeners = {
        "web": lb.listener,
        "asked": lb.add("asked", keep(Upstream())),
        "limited": lb.add("limited", keep(Upstream()), limits=slots),
        "dialling": lb.add("dialling", hole, connect_timeout=60.0),
        "refused": lb.add("refused", keep(Refuser())),
    }
    ports = {name: listener.port for name, listener in listeners.items()}
    others = {**dict.fromkeys(ports, 0), "dialling": fillers}

    strangers = [keep(plain(ports["web"])) for _ in range(EACH)]
    for stranger in strangers[::2]:
        stranger.sendall(b"\x16\x03\x01\x02\x00\x01")  # the first bytes of a ClientHello
    crowd["handshake"] = [TlsClient(ports["web"], client_context(pki, pki.alice)) for _ in range(EACH)]
    for client in crowd["handshake"]:
        client.sock.sendall(client.first_flight())
    for application, count in (("web", EACH), ("limited", 2 * EACH), ("dialling", EACH), ("asked", EACH)):
        crowd[application] = [connect(pki, ports[application]) for _ in range(count)]
    for _ in range(EACH):
        with connect(pki, ports["refused"]) as client:
            assert client.receive_to_end()[1] is End.CLOSE_NOTIFY
    for stage, count in (
        ("handshake", 2 * EACH), ("authorize", EACH), ("limit", EACH), ("dial", EACH), ("forward", 2 * EACH)
    ):  # fmt: skip
        lb.wait_open(count, stage)

    def agreed() -> bool:
        return counted(lb) == seen(lb, ports, others)

    wait_until(agreed, "the refused ones have left")
    assert counted(lb)["all"] == 7 * EACH
    assert lb.engine.stats()["unauthenticated"] == 3 * EACH  # those whose verdict is still out among them

    for place, clients in crowd.items():
        for client in clients[::2]:
            # Whoever only says goodbye is still dialled for.
            client.close() if place == "web" else client.reset()
    for stranger in strangers[::2]:
        stranger.close()
    wait_until(lambda: counted(lb)["all"] == 7 * EACH // 2, "half of them have left")
    wait_until(agreed, "the other half is counted right")

    gate.opened.set()
    for place, clients in crowd.items():
        for client in clients[1::2]:
            client.reset() if place == "dialling" else client.close()
    for stranger in strangers[1::2]:
        stranger.close()
    lb.wait_quiet()
    for application in lb.applications:
        upstream_ports = [int(server.address.rpartition(":")[2]) for server in application.upstreams]
        for port in (ports[application.name], *upstream_ports):
            wait_until(lambda: not left(port), f"nothing is left on {application.name}")  # noqa: B023
    assert counted(lb) == seen(lb, ports, others) == dict.fromkeys(counted(lb), 0)


def left(port: int) -> list[object]:
    """Ends at that port that wait for the other one's end."""
    return [*sockets(local=port, states=HALF_CLOSED), *sockets(remote=port, states=HALF_CLOSED)]
