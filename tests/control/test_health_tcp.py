"""Checks without TLS: who passes, who fails, and in which words. Real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.health import SHORT, Checked, first_result, target
from kit.proxy_header import SIGNATURE, Header, read_header
from kit.sockets import End, read_exactly
from kit.upstreams import Blackhole, Refuser, Script, Session, Upstream, greeter, hold, resetter, source
from kit.waiting import PATIENCE

from lbctl.health.plain import connect, open_socket

Keep = Callable[[Any], Any]
LOCAL_HEADER = SIGNATURE + b"\x20\x00\x00\x00"
TIMED_OUT = f"no answer within {SHORT:g}s"


def answering(question: bytes, answer: bytes) -> Script:
    """Answers that question, and no other one."""

    def run(session: Session) -> None:
        if read_exactly(session.sock, len(question)) == question:
            session.sock.sendall(answer)
        session.collect()

    return run


def dripping(data: bytes, pause: float) -> Script:
    """Sends a byte after each pause, until it is closed."""

    def run(session: Session) -> None:
        for byte in data:
            if session.released.wait(pause):
                return
            session.sock.sendall(bytes([byte]))

    return run


def hang_up(session: Session) -> None:
    """Ends at once."""


# ---- a connection --------------------------------------------------------------------------------


def test_a_connection_is_enough(keep: Keep) -> None:
    upstream = keep(Upstream())
    result = first_result(target(upstream.address))
    assert (result.passed, result.message, result.state, result.changed, result.count) == (
        True, "passed", "up", False, 1,
    )  # fmt: skip
    assert 0 < result.took < PATIENCE
    assert upstream.session().wait_end() is End.FIN


def test_refused(keep: Keep) -> None:
    result = first_result(target(keep(Refuser()).address))
    assert (result.passed, result.message, result.state) == (False, "connection refused", "down")
    assert (result.changed, result.count) == (True, 1)


def test_no_answer_to_the_connection(keep: Keep) -> None:
    result = first_result(target(keep(Blackhole()).address, timeout=SHORT))
    assert (result.passed, result.message) == (False, TIMED_OUT)
    assert SHORT <= result.took < SHORT + PATIENCE / 2


def test_ipv6(keep: Keep) -> None:
    upstream = keep(Upstream(host="::1"))
    assert first_result(target(upstream.address)).passed
    assert upstream.accepted >= 1


def test_it_is_nobody_when_a_socket_is_connected_with_itself() -> None:
    """The kernel may choose the very port that nobody listens on."""
    with open_socket(socket.AF_INET) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(connect(sock, sock.getsockname()))
        assert sock.getpeername() == sock.getsockname()  # that is what it was


@pytest.mark.parametrize(
    "address",
    [
        "localhost:80",
        "127.0.0.1",
        "127.0.0.1:99999",
        "::1:80",
        "[127.0.0.1]:80",
        "unix:relative",
        "unix:",
        "",
    ],
)
def test_what_is_no_address_is_said_at_once(address: str) -> None:
    with Checked() as checked, pytest.raises(ValueError, match=r"^address: "):
        checked.checker.add(target(address))


# ---- unix sockets --------------------------------------------------------------------------------


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


def test_a_unix_socket(keep: Keep, tmp_path: Path) -> None:
    upstream = keep(Upstream(greeter(b"hello"), listener=unix_listener(tmp_path / "up.sock")))
    assert first_result(target(upstream.address, expect=b"hell")).passed


def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    result = first_result(target(f"unix:{tmp_path}/none.sock"))
    assert (result.passed, result.message) == (False, "there is no such socket")


def test_a_unix_socket_that_nobody_listens_on(keep: Keep, tmp_path: Path) -> None:
    keep(unix_listener(tmp_path / "up.sock"))
    result = first_result(target(f"unix:{tmp_path}/up.sock"))
    assert (result.passed, result.message) == (False, "connection refused")


def test_a_unix_socket_whose_queue_is_full(keep: Keep, tmp_path: Path) -> None:
    """connect(2) says EAGAIN then, and the socket looks writable although it is not connected."""
    path = tmp_path / "up.sock"
    keep(unix_listener(path)).listen(0)
    refused = 0
    while refused == 0:
        filler = keep(open_socket(socket.AF_UNIX))
        refused = filler.connect_ex(str(path))
    assert refused == errno.EAGAIN
    result = first_result(target(f"unix:{path}"))
    assert (result.passed, result.message) == (False, "its queue of connections is full")


# ---- what is said --------------------------------------------------------------------------------


def test_the_answer_is_right(keep: Keep) -> None:
    upstream = keep(Upstream(answering(b"PING\r\n", b"+PONG and more")))
    assert first_result(target(upstream.address, send=b"PING\r\n", expect=b"+PONG")).passed


def test_the_answer_is_wrong(keep: Keep) -> None:
    upstream = keep(Upstream(answering(b"PING\r\n", b"-ERR\x1b[31m\n")))
    result = first_result(target(upstream.address, send=b"PING\r\n", expect=b"+PONG and a lot more"))
    assert not result.passed
    expected = r"the answer begins with b'-ERR\x1b[31m\n', not with b'+PONG and a lot more'"
    assert result.message == expected


def test_a_wrong_beginning_is_not_waited_on(keep: Keep) -> None:
    upstream = keep(Upstream(greeter(b"-")))
    result = first_result(target(upstream.address, expect=b"+PONG"))
    assert result.message == "the answer begins with b'-', not with b'+PONG'"


def test_a_server_that_speaks_first(keep: Keep) -> None:
    greeting = b"\x4a\x00\x00\x00\x0a10.11.6-MariaDB\x00" + bytes(50)
    upstream = keep(Upstream(greeter(greeting)))
    assert first_result(target(upstream.address, expect=greeting[:5])).passed


def test_what_was_not_read_does_not_make_the_end_a_reset(keep: Keep) -> None:
    upstream = keep(Upstream(source(b"x" * 4000)))
    assert first_result(target(upstream.address, expect=b"xx")).passed
    assert upstream.session().wait_end() is End.FIN


def test_no_more_than_the_expected_is_waited_for(keep: Keep) -> None:
    upstream = keep(Upstream(greeter(b"exactly")))
    assert first_result(target(upstream.address, expect=b"exactly")).passed


def test_it_hangs_after_accept(keep: Keep) -> None:
    upstream = keep(Upstream(hold))
    result = first_result(target(upstream.address, send=b"hello?", expect=b"yes", timeout=SHORT))
    assert (result.passed, result.message) == (False, TIMED_OUT)


def test_it_hangs_in_the_kernels_queue(keep: Keep) -> None:
    upstream = keep(Upstream(accepting=False))
    result = first_result(target(upstream.address, expect=b"yes", timeout=SHORT))
    assert (result.passed, result.message) == (False, TIMED_OUT)


def test_drops_that_come_in_time_do_not_make_an_answer_in_time(keep: Keep) -> None:
    upstream = keep(Upstream(dripping(b"a" * 1000, SHORT / 10)))
    result = first_result(target(upstream.address, expect=b"a" * 1000, timeout=SHORT))
    assert (result.passed, result.message) == (False, TIMED_OUT)
    assert SHORT <= result.took < SHORT + PATIENCE / 2


def test_an_answer_in_drops_is_an_answer(keep: Keep) -> None:
    upstream = keep(Upstream(dripping(b"drops", 0.01)))
    assert first_result(target(upstream.address, expect=b"drops")).passed


def test_it_ends_without_an_answer(keep: Keep) -> None:
    upstream = keep(Upstream(hang_up))
    result = first_result(target(upstream.address, expect=b"hello"))
    assert (result.passed, result.message) == (False, "it closed the connection without an answer")


def test_it_ends_within_the_answer(keep: Keep) -> None:
    upstream = keep(Upstream(source(b"hel")))
    result = first_result(target(upstream.address, expect=b"hello"))
    assert (result.passed, result.message) == (False, "it closed the connection after the answer b'hel'")


def test_it_resets(keep: Keep) -> None:
    upstream = keep(Upstream(resetter()))
    result = first_result(target(upstream.address, send=b"x", expect=b"hello"))
    assert (result.passed, result.message) == (False, "connection reset")


def test_nobody_reads_what_is_sent(keep: Keep) -> None:
    upstream = keep(Upstream(hold, receive_buffer=4096))
    result = first_result(target(upstream.address, send=bytes(1 << 24), timeout=SHORT))
    assert (result.passed, result.message) == (False, TIMED_OUT)


def test_the_proxy_header_comes_first(keep: Keep) -> None:
    headers: list[Header] = []

    def run(session: Session) -> None:
        headers.append(read_header(session.sock))
        answering(b"PING", b"PONG")(session)

    upstream = keep(Upstream(run))
    result = first_result(target(upstream.address, proxy=LOCAL_HEADER, send=b"PING", expect=b"PONG"))
    assert result.passed
    assert headers[0] == Header(2, None, None)


def test_a_proxy_header_alone(keep: Keep) -> None:
    upstream = keep(Upstream(lambda session: session.collect()))
    assert first_result(target(upstream.address, proxy=LOCAL_HEADER)).passed
    assert upstream.session().wait_end() is End.FIN
    assert upstream.session().received == LOCAL_HEADER


def test_somebody_who_never_stops_sending_does_not_keep_the_thread(keep: Keep) -> None:
    def flood(session: Session) -> None:
        while True:
            session.sock.sendall(b"f" * (1 << 16))

    upstream = keep(Upstream(flood))
    one = target(upstream.address, expect=b"ffff")
    assert all(result.passed for result in keep(Checked(one)).wait(one, 3))
