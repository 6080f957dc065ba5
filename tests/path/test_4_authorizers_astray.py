"""Stage 4 with authorizers that do what they should not: one question goes wrong, the others do not."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from kit.clients import End, connect
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Identity, Pki
from kit.upstreams import Upstream
from kit.waiting import wait_until

import lbcore
from lbcore import Verdict
from lbcore.authorizers import AuthorizerPool, Question

ALLOW = Verdict(True, client="somebody")
NOT_MADE = lbcore.RateLimitManager.__new__(lbcore.RateLimitManager, "")


def listen(lb: Any, upstream: Upstream, pki: Pki, authorize: Any) -> int:
    """One more port, with an authorizer of its own."""
    application = lbcore.Application("other", [lbcore.UpstreamServer(upstream.address)])
    return int(lb.engine.listen(application, "127.0.0.1:0", tls=pki.server_tls(), authorize=authorize).port)


def end_of(pki: Pki, port: int, identity: Identity) -> End:
    with connect(pki, port, identity) as client:
        return client.receive_to_end()[1]


async def wrong_arity(peer: lbcore.PeerCertificate) -> Verdict:
    return ALLOW


async def exits(peer: lbcore.PeerCertificate, application: str) -> Verdict:
    raise SystemExit(1)


async def cancels_itself(peer: lbcore.PeerCertificate, application: str) -> Verdict:
    raise asyncio.CancelledError


def interrupts(peer: lbcore.PeerCertificate, application: str) -> Verdict:
    raise KeyboardInterrupt


def unknown_client_type(peer: lbcore.PeerCertificate, application: str) -> Verdict:
    return Verdict(True, client=7)  # type: ignore[arg-type] # that is what is tested


@pytest.mark.parametrize(
    "astray", [wrong_arity, exits, cancels_itself, interrupts, unknown_client_type], ids=lambda f: f.__name__
)
def test_one_astray_is_an_error_of_its_own(
    balance: MakeBalancer,
    upstream: Upstream,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
    astray: Callable[..., Any],
) -> None:
    lb = balance(upstream)
    port = listen(lb, upstream, pki, astray)
    for _ in range(2):  # it is asked again, and the thread it ran on is still there
        assert end_of(pki, port, pki.alice) is End.RESET
    assert {record.reason for record in lb.records.wait(2, app="other")} == {"authz_error"}
    assert "the authorizer failed" in caplog.text
    with connect(pki, lb.port) as client:
        client.echo(b"the others go on")


def undecided(peer: lbcore.PeerCertificate, application: str) -> Verdict:
    raise lbcore.Undecided("what it asks is down")


async def undecided_later(peer: lbcore.PeerCertificate, application: str) -> Verdict:
    raise lbcore.Undecided("what it asks is down")


@pytest.mark.parametrize("authorize", [undecided, undecided_later], ids=lambda f: f.__name__)
def test_one_that_cannot_decide_is_asked_again_and_nothing_is_logged(
    balance: MakeBalancer,
    upstream: Upstream,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
    authorize: Callable[..., Any],
) -> None:
    lb = balance(upstream)
    port = listen(lb, upstream, pki, authorize)
    for _ in range(2):
        assert end_of(pki, port, pki.alice) is End.RESET
    assert {record.reason for record in lb.records.wait(2, app="other")} == {"authz_error"}
    assert caplog.text == ""
    assert upstream.accepted == 0


def test_after_one_failure_the_same_certificate_is_asked_about_again(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    asked: list[int] = []

    def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        asked.append(peer.serial)
        if len(asked) == 1:
            raise SystemExit
        return ALLOW

    lb = balance(upstream, authorize=authorize)
    assert end_of(pki, lb.port, pki.alice) is End.RESET
    with connect(pki, lb.port) as client:
        client.echo(b"x")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (True, "not bool"),
        ("alice", "not str"),
        (Verdict(False, reason="because"), "because"),
        (Verdict(True, client="alice", limits="many"), "many"),  # type: ignore[arg-type] # ditto
        (Verdict(True, client="alice", limits=NOT_MADE), "RateLimitManager"),
    ],
    ids=["bool", "text", "reason", "limits", "limits not made"],
)
def test_a_wrong_answer_is_logged(
    balance: MakeBalancer,
    upstream: Upstream,
    pki: Pki,
    caplog: pytest.LogCaptureFixture,
    answer: object,
    words: str,
) -> None:
    lb = balance(upstream, authorize=lambda peer, app: answer)
    with caplog.at_level(logging.ERROR, "lbcore.authorize"):
        assert end_of(pki, lb.port, pki.alice) is End.RESET
    assert lb.record().reason == "authz_error"
    assert words in caplog.text
    assert upstream.accepted == 0


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"allow": "no", "client": "c"}, TypeError),
        ({"allow": 1, "client": "c"}, TypeError),
        ({"allow": True}, ValueError),
        ({"allow": True, "client": 7}, TypeError),
        ({"allow": False}, ValueError),
        ({"allow": False, "reason": ["rate"]}, TypeError),
        ({"allow": True, "client": "c", "ttl": -1}, ValueError),
        ({"allow": True, "client": "c", "ttl": float("nan")}, ValueError),
    ],
)
def test_a_verdict_makes_sense_or_is_none(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Verdict(**fields)


def test_a_question_that_waited_too_long_does_not_speak_for_a_later_one(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep
) -> None:
    """The only thread is busy; carol's first connection gives up, her second one still waits."""
    busy, release = threading.Event(), threading.Event()

    def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        if peer.serial == pki.alice.serial:
            busy.set()
            release.wait(20)
        return ALLOW

    carol = pki.client()
    lb = balance(upstream, authorize=authorize, engine={"authorize_threads": 1, "authorize_timeout": 0.6})
    keep(connect(pki, lb.port))
    assert busy.wait(5)
    first = keep(connect(pki, lb.port, carol))
    wait_until(lambda: any(c["serial"] == carol.serial and c["age_s"] > 0.3 for c in lb.engine.connections()))
    second = keep(connect(pki, lb.port, carol))
    assert first.receive_to_end()[1] is End.RESET
    release.set()
    second.echo(b"admitted")
    assert {record.reason for record in lb.records.wait(2, event="conn.deny")} == {"authz_timeout"}


@pytest.mark.parametrize("kind", ["sync", "async", "async that blocks"])
def test_stop_does_not_wait_for_an_authorizer(
    balance: MakeBalancer, upstream: Upstream, pki: Pki, keep: Keep, kind: str
) -> None:
    inside, release = threading.Event(), threading.Event()

    def sync(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        inside.set()
        release.wait(20)
        return ALLOW

    async def polite(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        inside.set()
        await asyncio.sleep(20)
        return ALLOW

    async def blocking(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        return sync(peer, application)

    authorize = {"sync": sync, "async": polite, "async that blocks": blocking}[kind]
    lb = balance(upstream, authorize=authorize, engine={"authorize_timeout": 20.0})
    keep(connect(pki, lb.port))
    assert inside.wait(5)
    started = time.monotonic()
    assert lb.engine.stop() is False
    assert time.monotonic() - started < 10
    release.set()
    assert lb.record().reason == "drained"


def test_stop_while_answers_come(upstream: Upstream, pki: Pki) -> None:
    """Whoever answers and whoever stops must not wait for each other."""

    async def authorize(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        await asyncio.sleep(0.001)
        return Verdict(True, client="somebody", ttl=0)

    for _ in range(15):
        engine = lbcore.Engine(workers=2)
        engine.start()
        port = listen_on(engine, upstream, pki, authorize)
        over = threading.Event()
        visitors = [threading.Thread(target=visit_until, args=(pki, port, over)) for _ in range(3)]
        for visitor in visitors:
            visitor.start()
        wait_until(lambda engine=engine: engine.stats()["applications"]["web"]["forwarded"] > 5)
        engine.stop()
        over.set()
        for visitor in visitors:
            visitor.join(20)
            assert not visitor.is_alive()


def listen_on(
    engine: lbcore.Engine,
    upstream: Upstream,
    pki: Pki,
    authorize: Callable[[lbcore.PeerCertificate, str], Verdict | Awaitable[Verdict]],
) -> int:
    application = lbcore.Application("web", [lbcore.UpstreamServer(upstream.address)])
    return engine.listen(application, "127.0.0.1:0", tls=pki.server_tls(), authorize=authorize).port


def visit_until(pki: Pki, port: int, over: threading.Event) -> None:
    while not over.is_set():
        try:
            with connect(pki, port) as client:
                client.echo(b"x")
        except (OSError, AssertionError):
            continue  # the engine stops under it


def test_no_question_waits_behind_one_that_hangs() -> None:
    """Straight at the pool, many times: the moment that matters is the one in which a thread wakes up."""
    peer = lbcore.PeerCertificate(b"", 1)
    for _ in range(200):
        release, answered = threading.Event(), threading.Event()
        pool = AuthorizerPool(threads=2, timeout=20.0)

        def authorize(
            peer: lbcore.PeerCertificate, application: str, gate: threading.Event = release
        ) -> Verdict:
            if application == "hangs":
                gate.wait(20)
            return ALLOW

        def question(application: str, answer: Callable[[object], None], ask: Any = authorize) -> Question:
            return Question(ask, peer, application, time.monotonic() + 20, answer, lambda: True)

        try:
            pool.submit(question("hangs", lambda verdict: None))
            pool.submit(question("does not", lambda verdict, answered=answered: answered.set()))
            assert answered.wait(5)
        finally:
            release.set()
            pool.close()
