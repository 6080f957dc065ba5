"""Stage 4, authorize: nobody is let in by default, and nothing is dialled before the verdict."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.balancer import REFUSED, TLS_ENGINE, Balancer, Stopwatch
from kit.clients import TlsClient, client_context, connect, outcome
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Identity, Pki
from kit.sockets import End
from kit.upstreams import Upstream, greeter, sink
from kit.waiting import wait_until

import lbcore
from lbcore import PolicyClient, Verdict


class Gate:
    """An authorizer that answers when it is opened."""

    def __init__(self, verdict: Verdict) -> None:
        self.opened = threading.Event()
        self.asked: list[int] = []
        self._verdict = verdict

    def __call__(self, peer: lbcore.PeerCertificate, application: str) -> Verdict:
        self.asked.append(peer.serial)
        self.opened.wait(30)
        return self._verdict

    def close(self) -> None:
        self.opened.set()


@pytest.fixture
def gate(keep: Keep) -> Gate:
    return keep(Gate(Verdict(True, client="alice")))


def refused(lb: Balancer, identity: Identity) -> lbcore.Record:
    """The record of a client that is refused for good: it sees a reset."""
    assert outcome(lb.port, client_context(lb.pki, identity)) is End.RESET
    record = lb.record(event="conn.deny")
    assert record.stage == "authorize"
    assert record.serial == identity.serial
    assert not record.claimed
    return record


# ---- the authorizer ------------------------------------------------------------------------------


def test_an_allowed_client_is_named_in_its_record(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        client.echo(b"hello")
        source = client.source
    record = lb.record()
    assert (record.client, record.serial, record.app) == ("alice", pki.alice.serial, "web")
    assert record.source == source
    assert record.upstream == upstream.address


def test_a_tls_listener_without_an_authorizer_does_not_open(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    with pytest.raises(TypeError, match="authorize"):
        lb.engine.listen(lb.app, "127.0.0.1:0", tls=pki.server_tls())


def test_strangers_are_refused(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    record = refused(lb, pki.bob)
    assert (record.reason, record.client) == ("unknown_serial", None)
    assert record.certificate == pki.bob.der
    assert upstream.accepted == 0


@pytest.mark.parametrize(
    "reason", ["unknown_serial", "client_disabled", "client_blocked", "app_not_allowed"]
)
def test_the_authorizers_reason_is_the_records(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, reason: str
) -> None:
    lb = balance(upstream, authorize=lambda peer, app: Verdict(False, client="bob", reason=reason))
    record = refused(lb, pki.bob)
    assert (record.reason, record.client) == (reason, "bob")
    assert upstream.accepted == 0


def test_one_application_says_nothing_about_another(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    lb = balance(upstream)
    other_upstream = keep(Upstream())
    lb.policy.allow(pki.bob, "other")
    other = lb.add("other", other_upstream)
    assert refused(lb, pki.bob).reason == "app_not_allowed"
    with connect(pki, other.port, pki.bob) as client:
        client.echo(b"x")
    assert upstream.accepted == 0


def test_what_the_authorizer_is_told(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    seen = []

    def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        seen.append((peer, application))
        return Verdict(True, client="alice")

    lb = balance(upstream, authorize=authorize)
    with connect(pki, lb.port) as client:
        client.echo(b"x")
        source = client.source
    [(peer, application)] = seen
    assert application == "web"
    assert (peer.der, peer.serial, peer.source) == (pki.alice.der, pki.alice.serial, source)
    assert peer.certificate.serial_number == pki.alice.serial
    assert peer.serial_hex == "1001"


# ---- authorizers that fail -----------------------------------------------------------------------


def test_one_that_raises(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        raise LookupError("the database is away")

    lb = balance(upstream, authorize=authorize)
    with caplog.at_level(logging.ERROR, "lbcore.authorize"):
        assert refused(lb, pki.alice).reason == "authz_error"
    assert "the database is away" in caplog.text
    assert upstream.accepted == 0


@pytest.mark.parametrize(
    "answer",
    [None, True, "alice", Verdict(False, reason="because"), Verdict(False, reason="rate")],
    ids=["none", "true", "text", "made up reason", "a reason of another stage"],
)
def test_one_that_answers_nonsense(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, answer: object
) -> None:
    lb = balance(upstream, authorize=lambda peer, app: answer)
    assert refused(lb, pki.alice).reason == "authz_error"
    assert upstream.accepted == 0


def test_a_failure_is_not_remembered(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[Verdict | None] = [None, Verdict(True, client="alice")]
    lb = balance(upstream, authorize=lambda peer, app: answers.pop(0))
    assert refused(lb, pki.alice).reason == "authz_error"
    with connect(pki, lb.port) as client:
        client.echo(b"second try")


def test_one_that_is_late(balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 0.3})
    record = refused(lb, pki.alice)
    assert record.reason == "authz_timeout"
    assert 280 <= record.duration_ms < 3000
    assert upstream.accepted == 0
    gate.opened.set()


def test_one_that_hangs_stops_nobody_who_is_known(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """All of its threads hang; clients with a cached verdict, records and stats go on."""
    hanging = threading.Event()
    lb = balance(upstream, engine={"authorize_timeout": 20.0, "authorize_threads": 2})
    strangers = [pki.client() for _ in range(3)]
    known = lb.policy

    def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        if peer.serial in {identity.serial for identity in strangers}:
            hanging.wait(30)
        return known(peer, application)

    slow = lb.engine.listen(
        lbcore.Application("web", [lbcore.UpstreamServer(upstream.address)]),
        "127.0.0.1:0",
        tls=pki.server_tls(),
        authorize=authorize,
    )
    try:
        with connect(pki, slow.port) as client:
            client.echo(b"known from now on")
        waiting = [connect(pki, slow.port, identity) for identity in strangers]
        lb.wait_open(3, "authorize")

        def visit(number: int) -> None:
            with connect(pki, slow.port) as client:
                client.echo(b"visit %d" % number)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(visit, range(100)))
        lb.records.wait(101, event="conn.close")
        assert lb.stages().count("authorize") == 3
        assert all(worker["stamp_age_s"] < 5 for worker in lb.engine.stats()["workers"])
    finally:
        hanging.set()
    for client in waiting:
        assert client.receive_to_end()[1] is End.RESET
        client.close()
    assert len(lb.records.wait(3, reason="unknown_serial")) == 3


# ---- async authorizers ---------------------------------------------------------------------------


def test_an_async_authorizer(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    async def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        await asyncio.sleep(0.01)
        if peer.serial == pki.alice.serial:
            return Verdict(True, client="alice")
        return Verdict(False, reason="unknown_serial")

    lb = balance(upstream, authorize=authorize)
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    assert refused(lb, pki.bob).reason == "unknown_serial"


def test_a_callable_that_answers_an_awaitable(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    async def look_up() -> Verdict:
        return Verdict(True, client="alice")

    lb = balance(upstream, authorize=lambda peer, app: look_up())
    with connect(pki, lb.port) as client:
        client.echo(b"x")


def test_many_async_questions_wait_at_once(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    """Each takes a third of a second; one after the other they would be refused."""

    async def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        await asyncio.sleep(0.3)
        return Verdict(True, client=f"{peer.serial}")

    lb = balance(upstream, authorize=authorize, engine={"authorize_timeout": 2.5})
    clients = [connect(pki, lb.port, pki.client()) for _ in range(20)]
    for client in clients:
        client.echo(b"x")
        client.close()


def test_an_async_authorizer_that_raises(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        raise LookupError("the directory is away")

    lb = balance(upstream, authorize=authorize)
    assert refused(lb, pki.alice).reason == "authz_error"
    assert "the directory is away" in caplog.text


def test_an_async_authorizer_that_is_late(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    async def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        await asyncio.sleep(60)
        raise AssertionError("cancelled before")

    lb = balance(upstream, authorize=authorize, engine={"authorize_timeout": 0.3})
    assert refused(lb, pki.alice).reason in ("authz_timeout", "authz_error")
    assert upstream.accepted == 0


# ---- remembered verdicts -------------------------------------------------------------------------


def test_a_client_is_asked_about_once(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream, engine={"workers": 2})
    for _ in range(20):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
    assert lb.policy.asked == [(pki.alice.serial, "web")]


def test_many_at_once_are_one_question(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate, keep: Keep
) -> None:
    lb = balance(upstream, authorize=gate)
    clients = [keep(connect(pki, lb.port)) for _ in range(20)]
    lb.wait_open(20, "authorize")
    wait_until(lambda: gate.asked, "the authorizer is asked")
    assert gate.asked == [pki.alice.serial]
    gate.opened.set()
    for client in clients:
        client.echo(b"x")
    # A question that was still on its way when the answer came is put once more, and no more than that.
    assert len(gate.asked) <= 2


def test_a_refusal_is_remembered_too(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    for _ in range(5):
        assert outcome(lb.port, client_context(pki, pki.bob)) is End.RESET
    lb.records.wait(5, reason="unknown_serial")
    assert lb.policy.asked == [(pki.bob.serial, "web")]


def test_a_verdict_without_life_is_asked_for_every_time(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    lb.policy.ttl = 0
    for _ in range(5):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
    assert len(lb.policy.asked) == 5


def test_a_verdict_lives_as_long_as_it_says(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    lb.policy.ttl = 0.2

    def visit() -> int:
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        return len(lb.policy.asked)

    visit()
    wait_until(lambda: visit() >= 2, "the verdict is asked for again")
    assert len(lb.policy.asked) < len(lb.records.wait(2, event="conn.close"))


def test_two_certificates_of_one_serial_are_two_questions(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """The cache goes by the whole certificate."""
    twin = pki.ca.issue("alice-twin", serial=pki.alice.serial)
    lb = balance(upstream)
    for identity in (pki.alice, twin):
        with connect(pki, lb.port, identity) as client:
            client.echo(b"x")
    assert len(lb.policy.asked) == 2


# ---- the native table ----------------------------------------------------------------------------


def test_the_table_refuses_without_a_question(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    disabled = pki.client()
    lb = balance(
        upstream,
        policy=[
            PolicyClient("alice", [pki.alice.serial, 7], ["web"]),
            PolicyClient("bob", [pki.bob.serial], ["other"]),
            PolicyClient("carol", [disabled.serial], ["web"], disabled=True),
        ],
    )
    stranger = pki.client()
    for identity, reason, client in (
        (stranger, "unknown_serial", None),
        (pki.bob, "app_not_allowed", "bob"),
        (disabled, "client_disabled", "carol"),
    ):
        assert outcome(lb.port, client_context(pki, identity)) is REFUSED
        record = lb.record(serial=identity.serial)
        assert (record.stage, record.reason, record.client) == ("authorize", reason, client)
        assert record.claimed == (TLS_ENGINE == "openssl")  # decided before the proof of the key
    assert lb.policy.asked == []
    assert upstream.accepted == 0


def test_the_table_alone_lets_nobody_in(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream, policy=[PolicyClient("alice", [pki.alice.serial], ["web"])])
    lb.policy.clients.clear()
    assert refused(lb, pki.alice).reason == "unknown_serial"
    assert lb.policy.asked == [(pki.alice.serial, "web")]


@pytest.mark.parametrize("serials", [[0], [-1], [2**160], ["1001"], [5, 5]])
def test_the_table_takes_sane_serials_only(
    balance: MakeBalancer, upstream: Upstream, serials: list[Any]
) -> None:
    lb = balance(upstream)
    with pytest.raises((TypeError, ValueError), match="serial"):
        lb.engine.set_policy([PolicyClient("alice", serials, ["web"])])


# ---- a new policy --------------------------------------------------------------------------------


def test_a_new_policy_forgets_verdicts(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    lb.policy.clients.clear()
    epoch = lb.engine.set_policy(None)
    assert lb.engine.stats()["epoch"] == epoch
    assert refused(lb, pki.alice).reason == "unknown_serial"


def test_a_new_policy_closes_who_lost_access(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    lb.policy.allow(pki.bob, "web")
    with connect(pki, lb.port) as alice, connect(pki, lb.port, pki.bob) as bob:
        alice.echo(b"x")
        bob.echo(b"x")
        lb.engine.set_policy([PolicyClient("alice", [pki.alice.serial], ["web"])])
        data, end = bob.receive_to_end()
        assert data == b""
        assert end in (End.RESET, End.FIN)
        alice.echo(b"still here")
    record = lb.record(client="bob")
    assert (record.event, record.reason, record.stage) == ("conn.close", "revoked_while_open", "forward")
    assert upstream.session(1).wait_end() is End.RESET


@pytest.mark.parametrize("change", ["disabled", "app taken away"])
def test_access_is_lost_in_several_ways(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, change: str
) -> None:
    lb = balance(upstream, policy=[PolicyClient("alice", [pki.alice.serial], ["web"])])
    with connect(pki, lb.port) as client:
        client.echo(b"x")
        lb.engine.set_policy(
            [
                PolicyClient(
                    "alice",
                    [pki.alice.serial],
                    ["web"] if change == "disabled" else ["other"],
                    disabled=change == "disabled",
                )
            ]
        )
        assert client.receive_to_end()[1] in (End.RESET, End.FIN)
    assert lb.record().reason == "revoked_while_open"


def test_a_new_policy_asks_again_for_who_waits(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate
) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "authorize")
        lb.engine.set_policy(None)
        wait_until(lambda: len(gate.asked) == 2, "the question is put again")
        gate.opened.set()
        client.echo(b"x")


def test_an_answer_of_an_older_policy_lets_nobody_in(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate
) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "authorize")
        lb.engine.set_policy([PolicyClient("bob", [pki.bob.serial], ["web"])])
        gate.opened.set()
        assert client.receive_to_end()[1] is End.RESET
    assert lb.record().reason == "unknown_serial"
    assert upstream.accepted == 0


# ---- while the verdict is awaited ----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 16383, 16384, 16385, 300_000])
def test_early_bytes_are_kept_and_nothing_is_dialled(
    balance: MakeBalancer, pki: Pki, gate: Gate, keep: Keep, size: int
) -> None:
    upstream = keep(Upstream(sink))
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    with connect(pki, lb.port) as client:
        sender = threading.Thread(target=client.send, args=(data,))
        sender.start()
        lb.wait_open(1, "authorize")
        wait_until(
            lambda: lb.engine.connections()[0]["bytes_in"] >= min(size, 16384 - 4096), "early bytes are in"
        )
        assert upstream.accepted == 0
        gate.opened.set()
        sender.join(20)
        client.send_close_notify()
        assert upstream.session().wait_end() is End.FIN
        assert bytes(upstream.session().received) == data


def test_early_bytes_held_are_bounded(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate
) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    with connect(pki, lb.port) as client:
        client.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.send(bytes(64 << 20))
        [connection] = lb.engine.connections()
        assert connection["stage"] == "authorize"
        assert connection["bytes_in"] <= 64 * 1024
        client.reset()
    assert lb.record().reason == "client_gone"


def test_a_bad_early_record_is_named(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate
) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "authorize")
        client.sock.sendall(client.seal(b"good") + b"\x17\x03\x03\x00\x28" + bytes(40))
        record = lb.record()
    assert (record.reason, record.stage) == ("client_gone", "authorize")
    assert record.tls_error is not None
    assert upstream.accepted == 0


def test_a_server_first_protocol_needs_no_client_byte(balance: MakeBalancer, pki: Pki, keep: Keep) -> None:
    upstream = keep(Upstream(greeter(b"220 ready\r\n")))
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        assert client.receive(11) == b"220 ready\r\n"


@pytest.mark.parametrize("how", ["reset", "fin"])
def test_who_leaves_while_waiting_is_noticed(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate, how: str
) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "authorize")
        if how == "reset":
            client.reset()
        else:
            client.send_fin()
        watch = Stopwatch()
        record = lb.record()
    assert watch.seconds < 5
    assert (record.reason, record.stage) == ("client_gone", "authorize")
    assert upstream.accepted == 0


def test_a_half_close_while_waiting_goes_on(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate
) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "authorize")
        client.send(b"all I have to say")
        client.send_close_notify()
        time.sleep(0.05)  # nothing must happen meanwhile, so there is nothing to wait for
        assert lb.stages() == ["authorize"]
        gate.opened.set()
        assert client.receive_to_end() == (b"all I have to say", End.CLOSE_NOTIFY)


def test_stop_does_not_wait_for_a_verdict(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate
) -> None:
    lb = balance(upstream, authorize=gate, engine={"authorize_timeout": 20.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "authorize")
        watch = Stopwatch()
        lb.engine.stop()
        assert watch.seconds < 5
        assert client.receive_to_end()[1] in (End.RESET, End.FIN)
        gate.opened.set()
    assert lb.record().reason == "drained"


def test_a_client_whose_hello_is_all_it_says(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, gate: Gate
) -> None:
    """The verdict comes while the client's Finished and its first bytes arrive in one segment."""
    lb = balance(upstream, authorize=gate)
    gate.opened.set()
    with TlsClient(lb.port, client_context(pki, pki.alice)) as client:
        client.handshake()
        client.echo(b"in the same breath")


def test_who_is_not_let_in_takes_no_place_of_clients(
    balance: MakeBalancer, upstream: Upstream, keep: Keep, pki: Pki
) -> None:
    """A valid certificate alone is worth no more than none: its holder is a stranger until the verdict."""
    answered = threading.Event()

    def slow(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
        if peer.serial == pki.alice.serial:
            return lbcore.Verdict(True, client="alice")
        answered.wait(10)
        return lbcore.Verdict(False, reason="unknown_serial")

    most = 8
    lb = balance(
        upstream, authorize=slow, engine={"max_connections": most, "authorize_timeout": 10.0, "workers": 1}
    )
    with connect(pki, lb.port) as client:
        client.echo(b"her verdict is known")
    lb.wait_quiet()
    for _ in range(most):
        keep(connect(pki, lb.port, pki.bob))
    lb.wait_open(most, "authorize")
    stats = lb.engine.stats()
    assert (stats["open"], stats["unauthenticated"]) == (0, most)
    with connect(pki, lb.port) as client:
        client.echo(b"let in")
        answered.set()
        lb.records.wait(most, reason="unknown_serial")
