"""Webhook: an alert is posted to a server. Real sockets, real TLS."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.pki import Pki
from kit.store import Request, StoreServer, unused_port
from kit.waiting import PATIENCE, wait_until

from lbctl import endpoint as module
from lbctl.alerts.hook import NotDelivered
from lbctl.alerts.webhook import Webhook
from lbctl.interrupt import Interrupt

SHORT = 0.3  # seconds
ALERT = b'{"v":1,"alert":"app_down"}'


@pytest.fixture
def server(pki: Pki) -> Iterator[StoreServer]:
    with StoreServer(pki) as server:
        server.answer = lambda request: request.send(204)
        yield server


def url(server: StoreServer) -> str:
    return server.url.replace("/v1/serials/{serial}", "/lb?token=secret")


def failure(hook: Webhook) -> str:
    with pytest.raises(NotDelivered) as caught:
        hook.deliver(ALERT, Interrupt())
    return caught.value.problem


def test_it_posts_json(pki: Pki, server: StoreServer) -> None:
    paths: list[str] = []

    def answer(request: Request) -> None:
        paths.append(f"{request.command} {request.path}")
        request.send(200, b"thank you" * 10_000)  # which nobody reads

    server.answer = answer
    Webhook(url(server), pki.ca.cert, PATIENCE).deliver(ALERT, Interrupt())
    assert (server.posted, paths) == ([ALERT], ["POST /lb?token=secret"])
    assert server.headers[0]["Content-Type"] == "application/json"
    assert server.headers[0]["Content-Length"] == str(len(ALERT))


def test_plain_http() -> None:
    with StoreServer() as server:
        server.answer = lambda request: request.send(202)
        Webhook(url(server), None, PATIENCE).deliver(ALERT, Interrupt())
        assert server.posted == [ALERT]


@pytest.mark.parametrize("status", [200, 201, 204, 299])
def test_any_success_is_one(pki: Pki, server: StoreServer, status: int) -> None:
    server.answer = lambda request: request.send(status)
    Webhook(url(server), pki.ca.cert, PATIENCE).deliver(ALERT, Interrupt())


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (302, "HTTP status 302, and redirects are not followed"),
        (404, "HTTP status 404"),
        (500, "HTTP status 500"),
    ],
)
def test_other_answers_are_failures(pki: Pki, server: StoreServer, status: int, problem: str) -> None:
    server.answer = lambda request: request.send(status, Location=url(server))
    assert failure(Webhook(url(server), pki.ca.cert, PATIENCE)) == problem
    assert len(server.posted) == 1


def test_one_of_another_ca_gets_nothing(pki: Pki, server: StoreServer) -> None:
    """Neither of a wrong one nor of none of the system's."""
    stranger = pki.rogue.cert
    for ca in (stranger, None):
        assert failure(Webhook(url(server), ca, PATIENCE)).startswith("its certificate is not accepted")
    assert server.posted == []


def test_one_that_is_slow_is_given_up(pki: Pki, server: StoreServer) -> None:
    server.answer = server.hang
    began = time.monotonic()
    assert failure(Webhook(url(server), pki.ca.cert, SHORT)) == f"no answer within {SHORT:g} s"
    assert time.monotonic() - began < SHORT + PATIENCE / 2


def test_nobody_listens(pki: Pki) -> None:
    hook = Webhook(f"https://127.0.0.1:{unused_port()}/", pki.ca.cert, PATIENCE)
    assert failure(hook) == "Connection refused"


def call_off(hook: Webhook, begun: threading.Event) -> None:
    """It ends long before its time, and another one does not begin."""
    interrupt = Interrupt()

    def end() -> None:
        assert begun.wait(PATIENCE)
        interrupt.set()

    thread = threading.Thread(target=end)
    thread.start()
    began = time.monotonic()
    with pytest.raises(NotDelivered):
        hook.deliver(ALERT, interrupt)
    assert time.monotonic() - began < PATIENCE
    thread.join()
    with pytest.raises(NotDelivered, match="given up"):
        hook.deliver(ALERT, interrupt)


def test_it_is_called_off_while_it_waits_for_an_answer(pki: Pki, server: StoreServer) -> None:
    begun = threading.Event()

    def answer(request: Request) -> None:
        begun.set()
        server.gate.wait()

    server.answer = answer
    call_off(Webhook(url(server), pki.ca.cert, 1000.0), begun)


def test_it_is_called_off_in_the_handshake(pki: Pki) -> None:
    begun = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def accept() -> None:
            with silent.accept()[0] as accepted:
                accepted.recv(1)  # of the hello
                begun.set()
                while accepted.recv(4096):
                    pass

        thread = threading.Thread(target=accept)
        thread.start()
        call_off(Webhook(f"https://127.0.0.1:{silent.getsockname()[1]}/", pki.ca.cert, 1000.0), begun)
        thread.join()


def test_it_is_called_off_while_it_connects(pki: Pki) -> None:
    """To a queue that is full: the kernel does not answer."""
    begun = threading.Event()
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as fillers:
        port = full.getsockname()[1]
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        stuck = wait_until(lambda: connecting(port), "the queue is full")

        def watch() -> None:
            wait_until(lambda: connecting(port) > stuck, "it connects")
            begun.set()

        thread = threading.Thread(target=watch)
        thread.start()
        call_off(Webhook(f"https://127.0.0.1:{port}/", pki.ca.cert, 1000.0), begun)
        thread.join()


def connecting(port: int) -> int:
    """How many sockets have asked for a connection to a port of loopback and wait for the answer."""
    syn_sent = "02"
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return sum(line[2].endswith(f":{port:04X}") and line[3] == syn_sent for line in lines)


def test_it_is_called_off_while_it_looks_up_the_name(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, gate = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        begun.set()
        gate.wait()
        return []

    monkeypatch.setattr(module.socket, "getaddrinfo", look_up)
    try:
        call_off(Webhook("https://hooks.example/", pki.ca.cert, 1000.0), begun)
    finally:
        gate.set()
