"""Stopping an engine from every side, and starting one when there is nothing to start it with."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from kit.balancer import Balancer
from kit.clients import TlsClient, client_context, connect
from kit.fixtures import Keep, MakeBalancer
from kit.pki import Pki
from kit.upstreams import Upstream
from kit.waiting import wait_until

import lbcore
from lbcore import Verdict, source_limits
from lbcore import engine as engine_module
from lbcore.source_limits import SourceLimits, source_of


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Takes every descriptor there is."""
    taken: list[int] = []
    try:
        while True:
            try:
                taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
            except OSError:
                break
        yield
    finally:
        for fd in taken:
            os.close(fd)


# ---- by whom -------------------------------------------------------------------------------------


def test_not_by_on_records(upstream: Upstream, pki: Pki, keep: Keep) -> None:
    said: list[str] = []

    def on_records(batch: Sequence[lbcore.Record]) -> None:
        with pytest.raises(RuntimeError) as caught:
            lb.engine.stop()
        said.append(str(caught.value))

    lb = keep(Balancer(pki, upstream, engine={"on_records": on_records}))
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    wait_until(lambda: said)
    assert said == ["engine: cannot be stopped by an authorizer, by on_records or by on_done"]
    assert lb.engine.state == "running"


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_not_by_an_authorizer(balance: MakeBalancer, upstream: Upstream, pki: Pki, kind: str) -> None:
    def sync(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        with pytest.raises(RuntimeError, match="cannot be stopped by an authorizer"):
            lb.engine.stop()
        return Verdict(True, client="alice")

    async def not_sync(peer: lbcore.PeerCertificate, application: str) -> Verdict:
        return sync(peer, application)

    lb = balance(upstream, authorize=sync if kind == "sync" else not_sync)
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    assert lb.engine.state == "running"


def test_the_second_one_waits_for_the_first(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    answers: list[bool] = []
    with connect(pki, lb.port) as client:
        client.echo(b"x")
        stoppers = [
            threading.Thread(target=lambda seconds=seconds: answers.append(lb.engine.stop(seconds)))
            for seconds in (30.0, 0.0, 0.0)
        ]
        stoppers[0].start()
        wait_until(lambda: lb.engine.state == "stopping")
        for stopper in stoppers[1:]:
            stopper.start()
        client.echo(b"the first one drains")
        assert answers == []
    for stopper in stoppers:
        stopper.join(10)
    assert answers == [True, True, True]


# ---- what must not hold it up --------------------------------------------------------------------


def test_on_records_that_does_not_return(
    upstream: Upstream, pki: Pki, monkeypatch: pytest.MonkeyPatch, keep: Keep
) -> None:
    release = threading.Event()
    lb = keep(Balancer(pki, upstream, engine={"on_records": lambda batch: release.wait(30)}))
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    lb.wait_quiet()
    monkeypatch.setattr(engine_module, "THREAD_TIMEOUT", 0.3)
    try:
        with pytest.raises(RuntimeError, match="on_records did not return"):
            lb.engine.stop()
        assert lb.engine.state == "stopping"
    finally:
        release.set()
    monkeypatch.undo()
    assert lb.engine.stop() is True
    assert lb.engine.state == "stopped"


def test_on_records_that_exits_is_called_again(
    upstream: Upstream, pki: Pki, keep: Keep, caplog: pytest.LogCaptureFixture
) -> None:
    batches: list[int] = []

    def on_records(batch: Sequence[lbcore.Record]) -> None:
        batches.append(len(batch))
        raise SystemExit

    lb = keep(Balancer(pki, upstream, engine={"on_records": on_records}))
    for number in range(2):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
        wait_until(lambda number=number: sum(batches) == number + 1)
    assert "records are lost" in caplog.text


# ---- descriptors ---------------------------------------------------------------------------------


def test_stop_needs_no_descriptor(balance: MakeBalancer, upstream: Upstream, pki: Pki) -> None:
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        client.echo(b"x")
        with no_descriptors():
            assert len(lb.engine.connections()) == 1
            lb.engine.set_policy([lbcore.PolicyClient("alice", [pki.alice.serial], ["web"])])
            assert lb.engine.stop() is False
        assert lb.engine.state == "stopped"


def test_a_start_without_descriptors_leaves_nothing() -> None:
    engine = lbcore.Engine(workers=2)
    with no_descriptors(), pytest.raises(OSError, match="open files"):
        engine.start()
    assert engine.state == "stopped"


def test_a_listen_without_descriptors_leaves_nothing(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    application = lbcore.Application("more", [lbcore.UpstreamServer(upstream.address)])
    with no_descriptors(), pytest.raises(OSError, match="open files"):
        lb.engine.listen(application, "127.0.0.1:0", plaintext=True)
    assert list(lb.engine.stats()["applications"]) == ["web"]


# ---- who was accepted before ---------------------------------------------------------------------


def test_who_was_accepted_before_the_listener_closed_is_still_asked_about(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    client = TlsClient(lb.port, client_context(pki, pki.alice))
    with client:
        lb.wait_open(1, "handshake")
        lb.listener.close()
        client.handshake()
        client.echo(b"served")
    assert lb.policy.asked == [(pki.alice.serial, "web")]


# ---- fork ----------------------------------------------------------------------------------------


def test_a_fork_while_the_engine_is_asked(balance: MakeBalancer, upstream: Upstream) -> None:
    """The child gets a lock that a thread holds which does not exist there."""
    lb = balance(upstream)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            lb.engine.connections()

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        for _ in range(10):
            assert exit_status_of_child(lambda: (lb.engine.stats(), lb.engine.stop())) == 0
    finally:
        over.set()
        asker.join()


def exit_status_of_child(action: Callable[[], Any]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    status = 0

    def ended() -> bool:
        nonlocal status
        found, status = os.waitpid(pid, os.WNOHANG)
        return found == pid

    try:
        wait_until(ended, "the child ends")
    except AssertionError:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        raise
    return os.waitstatus_to_exitcode(status)


# ---- misuse --------------------------------------------------------------------------------------


def test_what_was_made_is_not_made_again(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    server = lbcore.UpstreamServer("127.0.0.1:1")
    for thing, arguments in ((lb.engine, ()), (server, ("127.0.0.1:2",)), (lb.app, ("x", [server]))):
        with pytest.raises(RuntimeError, match="already made"):
            thing.__init__(*arguments)
    assert lb.engine.state == "running"
    assert server.address == "127.0.0.1:1"


def test_an_upstream_server_belongs_to_one_application() -> None:
    server = lbcore.UpstreamServer("127.0.0.1:1")
    lbcore.Application("one", [server])
    with pytest.raises(ValueError, match="belongs to one Application"):
        lbcore.Application("two", [server])


def test_what_was_not_made_is_refused(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    application = lbcore.Application.__new__(lbcore.Application, "raw", [])
    server = lbcore.UpstreamServer.__new__(lbcore.UpstreamServer)
    for use in (lambda: application.id, lambda: application.open_connections, application.stats):
        with pytest.raises(RuntimeError, match="__init__ was not called"):
            use()
    assert "not made" in repr(application)
    with pytest.raises(ValueError, match="__init__ was not called"):
        lb.engine.listen(application, "127.0.0.1:0", plaintext=True)
    with pytest.raises(ValueError, match="__init__ was not called"):
        lbcore.Application("other", [server])


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: lbcore.ServerTLS(cert=b"", key=b"", client_ca=b"", alpn="h2"), TypeError, "alpn"),
        (lambda: lbcore.ServerTLS(cert=b"", key=b"", client_ca=b"", alpn=[2]), TypeError, "alpn"),
        (lambda: lbcore.ServerTLS(cert=b"", key=b"", client_ca=b"", alpn=["x" * 256]), ValueError, "alpn"),
        (lambda: lbcore.PolicyClient("a", [1], "web"), TypeError, "apps"),
        (lambda: lbcore.PolicyClient("a", ["1"], ["web"]), TypeError, "serials"),
        (lambda: lbcore.PolicyClient("a", [0], ["web"]), ValueError, "serials"),
        (lambda: lbcore.PolicyClient(None, [1], ["web"]), TypeError, "name"),
        (lambda: lbcore.UpstreamServer("[127.0.0.1]:80"), ValueError, "brackets"),
        (lambda: lbcore.UpstreamServer("[[::1]]:80"), ValueError, "IP address"),
        (lambda: lbcore.UpstreamServer("::1:80"), ValueError, "brackets"),
        (lambda: lbcore.UpstreamServer("127.0.0.1:0"), ValueError, "port"),
        (lambda: lbcore.UpstreamServer("localhost:80"), ValueError, "IP address"),
    ],
)
def test_arguments_that_make_no_sense(make: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_plaintext_is_said_in_so_many_words(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)
    application = lbcore.Application("raw", [lbcore.UpstreamServer(upstream.address)])
    with pytest.raises(TypeError, match="plaintext"):
        lb.engine.listen(application, "127.0.0.1:0", plaintext="false")


# ---- sources -------------------------------------------------------------------------------------


def test_an_ipv6_host_is_one_source_whatever_its_address() -> None:
    def packed(text: str) -> bytes:
        return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)

    assert source_of(packed("192.0.2.1")) == source_of(packed("::ffff:192.0.2.1")) == "192.0.2.1"
    assert source_of(packed("2001:db8:0:1::1")) == source_of(packed("2001:db8:0:1:ffff::2"))
    limits = SourceLimits(lbcore.LimitClass(max_open=1))
    one, same, other = (
        limits.manager_for(packed(text)) for text in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
    )
    assert one is same
    assert one is not other


def test_a_full_table_forgets_who_has_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_limits, "SOURCES_MAX", 3)
    limits = SourceLimits(lbcore.LimitClass(max_open=1))
    managers = [limits.manager_for(bytes((192, 0, 2, number))) for number in range(3)]
    assert all(manager is not None for manager in managers)
    first, *others = managers
    assert first is not None
    assert first.connection_opened()
    assert limits.manager_for(bytes((192, 0, 2, 100))) is not None  # in place of the second one
    assert limits.manager_for(bytes((192, 0, 2, 0))) is first
    for manager in others[1:]:
        assert manager is not None
    first.connection_closed()

