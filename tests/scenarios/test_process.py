"""Whole processes with an engine inside: they end when they should, and nothing hangs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.clients import plain
from kit.fixtures import Keep
from kit.programs import Program
from kit.sockets import End, read_to_end
from kit.upstreams import Upstream
from kit.waiting import wait_until

PROGRAM = Path(__file__).parent / "programs" / "serve.py"


@pytest.fixture
def run(keep: Keep, upstream: Upstream) -> Callable[..., Program]:
    return lambda how, *more: keep(Program(PROGRAM, how, str(upstream.port), *more))


def refuses(port: int) -> bool:
    try:
        plain(port).close()
    except (ConnectionRefusedError, ConnectionResetError):
        return True
    return False


def test_term_lets_open_connections_finish(run: Callable[..., Program]) -> None:
    program = run("term", "30")
    with plain(program.port) as client:
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        program.process.send_signal(signal.SIGTERM)
        wait_until(lambda: refuses(program.port), "the port is closed")
        client.sendall(b"during the drain")
        assert client.recv(100) == b"during the drain"
        assert program.process.poll() is None
    assert program.ends() == (0, "True\n", "")


def test_term_ends_who_stays_too_long(run: Callable[..., Program]) -> None:
    program = run("term", "0.2")
    with plain(program.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        program.process.send_signal(signal.SIGTERM)
        assert read_to_end(client) == (b"", End.RESET)
    assert program.ends() == (0, "False\n", "")


def test_leaving_without_a_stop_does_not_hang(run: Callable[..., Program]) -> None:
    program = run("exit")
    with plain(program.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert program.ends() == (0, "", "")
        assert read_to_end(client)[0] == b""


def test_failing_without_a_stop_does_not_hang(run: Callable[..., Program]) -> None:
    program = run("raise")
    with plain(program.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert program.ends() == (1, "", "something else failed\n")


def test_leaving_in_a_drain_does_not_look_like_a_clean_end(run: Callable[..., Program]) -> None:
    program = run("leave")
    assert program.process.stdin is not None
    with plain(program.port) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        program.process.stdin.write("drain\n")
        program.process.stdin.flush()
        wait_until(lambda: refuses(program.port), "the port is closed")
        assert program.ends() == (0, "", "")
        assert read_to_end(client) == (b"", End.RESET)


def test_a_killed_process_leaves_the_port_free(run: Callable[..., Program]) -> None:
    program = run("exit")
    program.process.kill()
    program.process.wait()
    assert refuses(program.port)
