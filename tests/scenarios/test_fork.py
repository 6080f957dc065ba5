"""A forked child must not hold on to anything of the engine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from kit.clients import connect, plain
from kit.fixtures import MakeBalancer
from kit.pki import Pki
from kit.sockets import End
from kit.upstreams import Upstream
from kit.waiting import wait_until


@contextlib.contextmanager
def child(report: Callable[[], str]) -> Iterator[str]:
    """Forks; the child says `report()` and stays alive until the block is left."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, report().encode())
            os.close(writing)
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        with os.fdopen(reading) as stream:
            yield stream.read()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_the_engine_is_dead_in_the_child(balance: MakeBalancer, upstream: Upstream) -> None:
    lb = balance(upstream)

    def report() -> str:
        words = [lb.engine.state, str(lb.engine.running), str(lb.engine.connections())]
        try:
            lb.engine.set_policy([])
        except RuntimeError as error:
            words.append(str(error))
        lb.engine.stop()
        return "; ".join(words)

    with child(report) as said:
        assert said == "forked; False; []; engine: not running, it is forked"
    assert lb.engine.state == "running"


def test_peers_of_the_parent_see_their_ends_while_the_child_lives(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    """A copy of a socket in the child would hold back the FIN and the reset."""
    lb = balance(upstream, app={"idle_timeout": 0.5})
    with connect(pki, lb.port) as client:
        client.echo(b"x")
        with child(lambda: "here") as said:
            assert said == "here"
            client.echo(b"the parent goes on")
            assert client.receive_to_end()[1] is End.RESET
            assert upstream.session().wait_end() is End.RESET


def test_the_port_is_free_when_the_parent_stops_while_the_child_lives(
    balance: MakeBalancer, upstream: Upstream
) -> None:
    lb = balance(upstream)
    with child(lambda: "here"):
        lb.engine.stop()
        with pytest.raises(ConnectionRefusedError):
            plain(lb.port)


def test_the_parent_serves_after_the_child_has_gone(
    balance: MakeBalancer, upstream: Upstream, pki: Pki
) -> None:
    lb = balance(upstream)
    with child(lambda: "here"):
        pass
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    wait_until(lambda: not lb.held(), "nothing is held")
