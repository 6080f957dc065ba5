"""The floor: the least that forwards plain TCP, to hold the others against; and the table that does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.clients import plain
from kit.leaks import descriptors
from kit.sockets import reset
from kit.waiting import wait_until

from bench import floor, network
from bench.floor import Floor
from bench.proxies import Job, LoadBalancer, Running, running
from bench.upstream import PATTERN
from bench.works import Scale, Work, measure

MIB = 1 << 20
CPUS = sorted(os.sched_getaffinity(0))
MOMENT = Scale(seconds=0.1, idle=10, idle_before=10)


@pytest.fixture
def started(job: Job, tmp_path: Path) -> Iterator[Running]:
    with running(Floor(), job, tmp_path, CPUS[:1]) as proxy:
        yield proxy


@pytest.mark.parametrize("work", floor.WORKS_OF_IT, ids=lambda work: work.key)
def test_it_does_the_plain_works(work: Work, job: Job, tmp_path: Path) -> None:
    sample = measure(work, Floor(), job, MOMENT, tmp_path, CPUS[:1])
    assert sample.units > 0
    assert sample.value > 0


def test_ends_are_passed_on_one_by_one(started: Running) -> None:
    with plain(started.plain_port) as client:
        client.sendall(b"echo and that was it\n")
        client.shutdown(socket.SHUT_WR)
        assert client.makefile("rb").read() == b"echo and that was it\n"


def test_a_bulk_that_nobody_reads_for_a_while_is_complete(started: Running) -> None:
    with plain(started.plain_port, receive_buffer=4096) as client:
        client.sendall(b"source %d\n" % (8 * MIB))
        answer = bytearray(client.recv(100_000))
        wait_until(lambda: descriptors(started.pid) > 8, "what is not read is in a pipe")
        while len(answer) < 8 * MIB:
            answer += client.recv(MIB)
    assert answer == pattern(8 * MIB)


def pattern(length: int) -> bytes:
    """What a source sends: its pattern over and over."""
    return (PATTERN * (length // len(PATTERN) + 1))[:length]


def test_everything_is_closed(started: Running) -> None:
    """At the first look the connection that found it listening may be there still."""
    before = descriptors(started.pid)
    for request in (b"echo once\n", b"source 9000000\n") * 4:
        for end in ("closed", "reset"):
            with plain(started.plain_port) as client:
                client.sendall(request)
                assert client.recv(5)
                if end == "reset":
                    reset(client)
    wait_until(lambda: descriptors(started.pid) <= before, "sockets and pipes are closed")


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise network.NoNamespace("not here")

    monkeypatch.setattr(network, "enter", refused)
    monkeypatch.setattr(floor, "installed", lambda proxies: ({proxies[0]: proxies[0].version()}, []))
    monkeypatch.setattr(floor, "WORKS_OF_IT", floor.WORKS_OF_IT[:1])
    monkeypatch.setattr(floor, "QUICK", MOMENT)
    floor.main(["--rounds", "1", "--quick"])
    head, _, row = capsys.readouterr().out.strip().splitlines()[-3:]
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert head.split("|")[2:4] == [" floor ", f" {LoadBalancer.name} "]
    assert "new connection" in cells[0]
    ours, ratio = cells[2].rstrip(")").split(" (")
    assert float(ratio) == pytest.approx(float(ours) / float(cells[1]), rel=0.02)
    assert os.sched_getaffinity(0) == set(CPUS)
