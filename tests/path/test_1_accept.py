"""Stage 1, accept: shared sockets, fair workers, bounded numbers, and no spinning."""

from __future__ import annotations

import errno
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kit.clients import TlsClient, client_context, connect, outcome, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.sockets import End, read_to_end
from kit.upstreams import Upstream
from kit.waiting import wait_until

import lbcore


def spread(counts: list[int]) -> float:
    """How far apart they are, relative to the largest."""
    return (max(counts) - min(counts)) / max(counts)


def test_two_workers_share_a_steady_trickle(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    """One connection per millisecond wakes the same worker again and again; the balance is ours."""
    lb = balance(upstream, plaintext=True)
    for _ in range(400):
        keep(plain(lb.port))
        time.sleep(0.001)  # this is the load, not a wait
    lb.wait_open(400)
    workers = lb.engine.stats()["workers"]
    assert spread([worker["open"] for worker in workers]) <= 0.1
    assert sum(worker["accepted"] for worker in workers) == 400
    assert sum(worker["handed_over"] for worker in workers) > 0


def test_a_burst_is_shared_too(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    lb = balance(upstream, plaintext=True)
    for _ in range(200):
        keep(plain(lb.port))
    lb.wait_open(200)
    assert spread([worker["open"] for worker in lb.engine.stats()["workers"]]) <= 0.1


def test_every_worker_serves(balance: MakeBalancer, upstream: Upstream) -> None:
    """A connection that was handed over works like any other."""
    lb = balance(upstream, engine={"workers": 4})
    clients = [connect(lb.pki, lb.port) for _ in range(16)]
    for client in clients:
        client.echo(b"x" * 100)
    open_counts = [worker["open"] for worker in lb.engine.stats()["workers"]]
    for client in clients:
        client.close()
    assert sum(open_counts) == 16
    assert all(count >= 2 for count in open_counts)


def test_an_idle_worker_shows_that_it_lives(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    time.sleep(2.5)  # the time in which nothing happens
    assert max(worker["stamp_age_s"] for worker in lb.engine.stats()["workers"]) < 2


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """All of this process are taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.open("/dev/null", os.O_RDONLY)
    fillers = [highest]
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    try:
        # The lowest free numbers are taken by dup until there is none below the limit.
        while True:
            try:
                fillers.append(os.dup(highest))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for filler in fillers:
            os.close(filler)


def test_without_descriptors_it_neither_spins_nor_loses_who_is_open(
    balance: MakeBalancer, keep: Keep
) -> None:
    """EMFILE cannot be cured by accepting faster: the listener is left alone for a moment."""
    upstream = keep(Upstream())
    lb = balance(upstream, plaintext=True, engine={"workers": 1})
    before = keep(plain(lb.port))
    before.sendall(b"before")
    assert before.recv(100) == b"before"
    waiting = keep(socket.socket())
    waiting.settimeout(10)
    with no_descriptors_left():
        errors = lb.engine.stats()["accept_errors"]
        waiting.connect(("127.0.0.1", lb.port))
        wait_until(lambda: lb.engine.stats()["accept_errors"] > errors, "EMFILE is met")
        wakeups = lb.engine.stats()["workers"][0]["wakeups"]
        started = time.monotonic()
        for number in range(10):
            message = b"still here %d" % number
            before.sendall(message)
            assert before.recv(100) == message
            time.sleep(0.05)  # the time in which a spinning worker would wake up a million times
        elapsed = time.monotonic() - started
        woken = lb.engine.stats()["workers"][0]["wakeups"] - wakeups
        assert woken < 100 + 200 * elapsed
    # It stayed in the kernel's queue and is served once there are descriptors again.
    waiting.sendall(b"at last")
    assert waiting.recv(100) == b"at last"


def test_without_a_descriptor_for_the_dial_nobody_else_is_accepted(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, pki: Pki
) -> None:
    """Who cannot be served is not shaken hands with: listeners are left alone for a moment."""
    asked, answer = threading.Event(), threading.Event()

    def slow(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
        asked.set()
        answer.wait(10)
        return lbcore.Verdict(True, client="alice")

    lb = balance(upstream, authorize=slow, engine={"workers": 1})
    client = keep(connect(pki, lb.port))
    assert asked.wait(10)
    errors = lb.engine.stats()["accept_errors"]
    with no_descriptors_left():
        answer.set()
        record = lb.record(reason="connect_failed")
        assert lb.engine.stats()["accept_errors"] > errors
    assert (record.stage, record.errno) == ("dial", errno.EMFILE)
    assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    with connect(pki, lb.port) as later:
        later.echo(b"served again")


def test_the_oldest_stranger_makes_room(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    """Silent sockets are old, honest clients are quick: the newcomer is let in."""
    lb = balance(upstream, engine={"workers": 1, "max_unauthenticated": 8})
    silent = []
    for _ in range(8):
        silent.append(keep(plain(lb.port)))
        wait_until(lambda: lb.engine.stats()["unauthenticated"] == len(silent), "one stranger more")
    with connect(lb.pki, lb.port) as client:
        client.echo(b"let in")
    record = lb.record(reason="unauthenticated_full")
    assert (record.event, record.stage, record.serial) == ("conn.deny", "accept", None)
    host, port = silent[0].getsockname()
    assert record.source == f"{host}:{port}"
    assert read_to_end(silent[0])[0] == b""
    assert lb.engine.stats()["unauthenticated"] == 7


def test_the_cap_on_strangers_holds_in_a_flood(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    lb = balance(upstream, engine={"max_unauthenticated": 16})
    for _ in range(200):
        keep(plain(lb.port))
    lb.records.wait(150, reason="unauthenticated_full")
    one_for_the_other_worker = 1
    wait_until(
        lambda: lb.engine.stats()["unauthenticated"] <= 16 + one_for_the_other_worker, "at most 16 strangers"
    )
    with connect(lb.pki, lb.port) as client:
        client.echo(b"in the middle of it")
    assert upstream.accepted == 1


def test_strangers_on_one_worker_do_not_shut_the_other(
    balance: MakeBalancer, upstream: Upstream, keep: Keep
) -> None:
    """The cap is the node's, the lists are the workers': with all the strangers on one worker, a
    newcomer on the other one must not be the only one there is to evict."""
    lb = balance(upstream, engine={"max_unauthenticated": 1})
    for _ in range(10):
        keep(plain(lb.port))
        with connect(lb.pki, lb.port) as client:
            client.echo(b"let in")


def test_a_stranger_that_was_handed_over_evicts_at_once(
    balance: MakeBalancer, upstream: Upstream, keep: Keep
) -> None:
    """The worker that gets it from its inbox closes the older one then and there, not when it next wakes."""
    lb = balance(upstream, engine={"max_unauthenticated": 1, "handshake_timeout": 60.0})
    clients = []
    for _ in range(12):
        clients.append(keep(connect(lb.pki, lb.port)))
        clients[-1].echo(b"let in, no stranger any more")
    workers = lb.engine.stats()["workers"]
    lazy = min(range(2), key=lambda number: workers[number]["handed_over"])
    on_lazy = {row["source"] for row in lb.engine.connections() if row["id"].split("-")[1] == str(lazy)}
    for client in clients:
        if client.source in on_lazy:
            client.close()
    wait_until(lambda: lb.engine.stats()["workers"][lazy]["open"] == 0, "one worker holds nothing")
    handed_over = workers[1 - lazy]["handed_over"]
    for number in range(4):
        keep(plain(lb.port))
        lb.records.wait(number, timeout=2, reason="unauthenticated_full")
    assert lb.engine.stats()["workers"][1 - lazy]["handed_over"] > handed_over


def test_a_full_node_refuses(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream, engine={"max_connections": 2})
    with connect(lb.pki, lb.port) as first, connect(lb.pki, lb.port) as second:
        first.echo(b"1")
        second.echo(b"2")
        assert outcome(lb.port, client_context(lb.pki, lb.pki.alice)) in (End.RESET, End.FIN)
        record = lb.record(reason="node_full")
        assert (record.event, record.stage, record.upstream) == ("conn.deny", "accept", None)
        first.echo(b"1")
    lb.wait_quiet()
    with connect(lb.pki, lb.port) as client:
        client.echo(b"room again")
    assert upstream.accepted == 3


def test_strangers_take_no_place_of_clients(balance: MakeBalancer, upstream: Upstream, keep: Keep) -> None:
    """Each kind of socket has a cap of its own."""
    lb = balance(upstream, engine={"workers": 1, "max_connections": 2, "max_unauthenticated": 8})
    for number in range(8):
        keep(plain(lb.port))
        wait_until(lambda: lb.engine.stats()["unauthenticated"] == number + 1, "one more")  # noqa: B023
    assert lb.engine.stats()["open"] == 0
    with connect(lb.pki, lb.port) as first:
        first.echo(b"1")
        keep(connect(lb.pki, lb.port)).echo(b"2")
        stats = lb.engine.stats()
        # A client is a stranger for a moment too: the oldest one went for the first of them.
        assert (stats["open"], stats["unauthenticated"]) == (2, 7)
        assert outcome(lb.port, client_context(lb.pki, lb.pki.alice)) in (End.RESET, End.FIN)
        assert lb.record(reason="node_full").tls is None
    assert len(lb.records.all(reason="unauthenticated_full")) == 1


def test_a_node_that_becomes_full_during_a_handshake(balance: MakeBalancer, upstream: Upstream) -> None:
    """The place is taken when the client is known, so the refusal comes over TLS: later, not never."""
    lb = balance(upstream, engine={"max_connections": 1})
    late = TlsClient(lb.port, client_context(lb.pki, lb.pki.alice))
    with late:
        wait_until(lambda: lb.engine.stats()["unauthenticated"] == 1, "it is let to shake hands")
        with connect(lb.pki, lb.port) as client:
            client.echo(b"the one place")
            assert late.handshake().receive_to_end() == (b"", End.CLOSE_NOTIFY)
            record = lb.record(reason="node_full")
    assert (record.event, record.stage, record.tls) == ("conn.deny", "accept", "TLSv1.3")
    assert upstream.accepted == 1


def test_a_client_that_is_gone_before_accept_leaves_nothing(
    balance: MakeBalancer, upstream: Upstream
) -> None:
    lb = balance(upstream)
    for _ in range(50):
        plain(lb.port).close()
    lb.records.wait(50, reason="client_gone")
    assert upstream.accepted == 0


def test_socket_options_reach_both_sides(balance: MakeBalancer, upstream: Upstream) -> None:
    """Small writes go at once, and a peer that vanished is noticed."""
    lb = balance(upstream, plaintext=True, app={"tcp_keepalive": 33})
    with plain(lb.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        wait_until(lambda: len(keepalive_timers({lb.port, upstream.port}, 33)) >= 2, "both sides have one")


def keepalive_timers(ports: set[int], most: float) -> list[float]:
    """Seconds to the next keep-alive probe, at most so many, of the established sockets that have one of the
    ports."""
    ticks = 100  # of /proc/net/tcp, USER_HZ
    found = []
    with open("/proc/net/tcp") as table:  # noqa: PTH123
        for line in list(table)[1:]:
            fields = line.split()
            local, remote = (int(fields[i].split(":")[1], 16) for i in (1, 2))
            timer, expires = fields[5].split(":")
            if {local, remote} & ports and fields[3] == "01" and timer == "02":
                found.append(int(expires, 16) / ticks)
    return [seconds for seconds in found if 0 < seconds <= most]


def test_a_wildcard_address_serves_both_families(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    listener = lb.add("both", upstream, plaintext=True, address="[::]:0")
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as client:
            client.settimeout(10)
            client.connect((host, listener.port))
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
    sources = {record.source.rpartition(":")[0] for record in lb.records.wait(2, app="both")}
    assert sources == {"127.0.0.1", "[::1]"}


def test_a_taken_port_is_an_error_that_names_it(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    with pytest.raises(OSError, match=f"127.0.0.1:{lb.port}"):
        lb.engine.listen(
            lbcore.Application("other", [lbcore.UpstreamServer(upstream.address)]),
            f"127.0.0.1:{lb.port}",
            plaintext=True,
        )


def test_a_closed_listener_refuses_but_open_connections_go_on(
    balance: MakeBalancer, upstream: Upstream
) -> None:
    lb = balance(upstream, plaintext=True)
    with plain(lb.port) as client:
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        lb.listener.close()
        with pytest.raises(ConnectionRefusedError):
            plain(lb.port)
        client.sendall(b"after")
        assert client.recv(100) == b"after"
    lb.listener.close()  # does nothing the second time
