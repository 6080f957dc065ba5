"""Endpoint: one HTTPS GET that always ends, whatever the other side does. Real sockets, real TLS."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.pki import Pki
from kit.racing import at_once
from kit.store import Request, StoreServer, unused_port
from kit.waiting import PATIENCE

from lbctl import endpoint as module
from lbctl.config.store_url import parse_store_url
from lbctl.endpoint import ANSWER_MAX, BODY_MAX, Endpoint, EndpointFailed

SHORT = 0.3  # seconds


@pytest.fixture
def store(pki: Pki) -> Iterator[StoreServer]:
    with StoreServer(pki) as server:
        server.records["01"] = {"client": "alice"}
        yield server


def endpoint(
    pki: Pki,
    url: str,
    *,
    ca: Path | None = None,
    cert: Path | None = None,
    key: Path | None = None,
    timeout: float = PATIENCE,
) -> Endpoint:
    return Endpoint(parse_store_url(url), ca=ca or pki.ca.cert, cert=cert, key=key, timeout=timeout)


def failure(asked: Endpoint) -> str:
    with pytest.raises(EndpointFailed) as caught:
        asked.get("/v1/serials/01")
    return str(caught.value)


def test_it_asks_and_gets_the_answer(pki: Pki, store: StoreServer) -> None:
    asked = endpoint(pki, store.url)
    assert asked.get("/v1/serials/01") == (200, b'{"client": "alice"}')
    assert asked.get("/v1/serials/02") == (404, b"")
    assert store.asked == ["01", "02"]
    assert store.headers[0]["Host"] == f"127.0.0.1:{store.port}"
    assert store.headers[0]["Accept"] == "application/json"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_by_name_and_by_address(pki: Pki, store: StoreServer, host: str) -> None:
    url = store.url.replace("127.0.0.1", host)
    assert endpoint(pki, url).get("/v1/serials/01").status == 200


def test_plain_http(pki: Pki) -> None:
    with StoreServer() as server:
        server.records["01"] = {}
        assert endpoint(pki, server.url).get("/v1/serials/01") == (200, b"{}")


def test_it_shows_its_certificate(pki: Pki) -> None:
    with StoreServer(pki, demands=True) as server:
        server.records["01"] = {}
        asked = endpoint(pki, server.url, cert=pki.alice.cert, key=pki.alice.key)
        assert asked.get("/v1/serials/01").status == 200
        failure(endpoint(pki, server.url))
        stranger = pki.rogue.issue("alice")
        failure(endpoint(pki, server.url, cert=stranger.cert, key=stranger.key))
        assert server.asked == ["01"]


def test_a_store_of_another_ca_is_not_asked(pki: Pki) -> None:
    rogue = pki.rogue.issue("server", usages=(), addresses=("127.0.0.1",))
    with StoreServer(pki, server=rogue) as server:
        assert "its certificate is not accepted" in failure(endpoint(pki, server.url))
        assert server.asked == []


def test_a_store_of_another_name_is_not_asked(pki: Pki) -> None:
    other = pki.ca.issue("other", usages=(), addresses=("other.example",))
    with StoreServer(pki, server=other) as server:
        assert "its certificate is not accepted" in failure(endpoint(pki, server.url))
        assert server.asked == []


def test_without_a_ca_the_systems_decide(pki: Pki, store: StoreServer) -> None:
    asked = Endpoint(parse_store_url(store.url), ca=None, cert=None, key=None, timeout=PATIENCE)
    assert "its certificate is not accepted" in failure(asked)


def test_nobody_listens(pki: Pki) -> None:
    url = f"https://127.0.0.1:{unused_port()}/{{serial}}"
    assert failure(endpoint(pki, url)) == "Connection refused"


def test_a_name_that_does_not_exist(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(module.socket, "getaddrinfo", unknown)
    text = failure(endpoint(pki, "https://store.example/{serial}"))
    assert text == "the host's name cannot be resolved: Name or service not known"


def test_a_resolver_that_hangs(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, **__: gate.wait() and [])
    try:
        assert takes_no_longer(endpoint(pki, "https://store.example/{serial}", timeout=SHORT))
    finally:
        gate.set()


def takes_no_longer(asked: Endpoint) -> bool:
    """Whether it gives up by its deadline, with room for a busy machine."""
    began = time.monotonic()
    assert failure(asked) == f"no answer within {SHORT:g} s"
    return time.monotonic() - began < SHORT + PATIENCE / 2


def test_a_store_that_hangs(pki: Pki, store: StoreServer) -> None:
    store.answer = store.hang
    assert takes_no_longer(endpoint(pki, store.url, timeout=SHORT))


def test_one_that_hangs_in_the_handshake(pki: Pki) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/{{serial}}"
        assert takes_no_longer(endpoint(pki, url, timeout=SHORT))


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"], ids=["in the head", "in the body"]
)
def test_one_that_drips(pki: Pki, store: StoreServer, head: bytes) -> None:
    """Every single wait is short; their sum is what counts."""

    def drip(request: Request) -> None:
        request.wfile.write(head)
        while not store.gate.wait(SHORT / 10):
            request.wfile.write(b"x")

    store.answer = drip
    assert takes_no_longer(endpoint(pki, store.url, timeout=SHORT))


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "it closed the connection without an answer"),
        (b"\x15\x03\x01\x00\x02", "no valid HTTP (BadStatusLine)"),
        (b"220 mail.example ESMTP\r\n", "no valid HTTP (BadStatusLine)"),
        (b"HTTP/1.1 999999 No\r\n\r\n", "no valid HTTP (BadStatusLine)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", "the answer was cut off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", "the answer was cut off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "no valid HTTP (IncompleteRead)"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_MAX + 1) + b" " * (BODY_MAX + 1),
            "more than 16 KiB",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 10 * BODY_MAX, "more than 16 KiB"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "no valid HTTP (HTTPException)"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 2 * ANSWER_MAX, "more than 64 KiB"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * ANSWER_MAX, "more than 64 KiB"),
    ],
    ids=[
        "nothing", "TLS", "SMTP", "status", "cut off", "no body", "chunk", "big", "huge", "headers", "header",
        "continue",
    ],
)  # fmt: skip
def test_what_is_no_answer(pki: Pki, store: StoreServer, answer: bytes, problem: str) -> None:
    def write(request: Request) -> None:
        request.wfile.write(answer)

    store.answer = write
    assert failure(endpoint(pki, store.url)) == problem


def test_a_redirect_is_an_answer_and_not_followed(pki: Pki, store: StoreServer) -> None:
    store.answer = lambda request: request.send(302, Location=store.url.replace("{serial}", "02"))
    assert endpoint(pki, store.url).get("/v1/serials/01").status == 302
    assert store.asked == ["01"]


def test_a_body_in_chunks(pki: Pki, store: StoreServer) -> None:
    def chunks(request: Request) -> None:
        request.wfile.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"
        )

    store.answer = chunks
    assert endpoint(pki, store.url).get("/v1/serials/01").body == b"{}"


def test_proxies_of_the_environment_are_not_used(
    pki: Pki, store: StoreServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{unused_port()}")
    assert endpoint(pki, store.url).get("/v1/serials/01").status == 200


def test_a_second_address_is_tried(pki: Pki, store: StoreServer, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = ("127.0.0.1", unused_port())
    places = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", at) for at in (dead, ("127.0.0.1", store.port))]
    monkeypatch.setattr(module.socket, "getaddrinfo", lambda *_, **__: places)
    assert endpoint(pki, f"https://localhost:{store.port}/{{serial}}").get("/01").status == 200


def test_many_at_once(pki: Pki, store: StoreServer) -> None:
    asked = endpoint(pki, store.url)
    assert at_once(8, lambda: asked.get("/v1/serials/01").status) == [200] * 8


def test_files_that_are_wrong(pki: Pki, tmp_path: Path) -> None:
    url = "https://store.example/{serial}"
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    with pytest.raises(ssl.SSLError):
        endpoint(pki, url, ca=nonsense)
    with pytest.raises(ssl.SSLError):
        endpoint(pki, url, cert=pki.alice.cert, key=pki.bob.key)
    with pytest.raises(FileNotFoundError):
        endpoint(pki, url, ca=tmp_path / "absent.pem")
