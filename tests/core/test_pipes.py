"""Splice pipes: borrowed, kept few, counted in one budget, and never lent with somebody's bytes inside."""

import os
from types import ModuleType

import pytest


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_pipe_has_room_worth_splicing(probes: ModuleType) -> None:
    read_end, write_end, room = probes.Worker(pipes_max=1).take_pipe()
    assert read_end != write_end
    assert room >= 65536


def test_beyond_the_budget_there_is_none(probes: ModuleType) -> None:
    worker = probes.Worker(pipes_max=3)
    pipes = [worker.take_pipe() for _ in range(5)]
    assert [pipe is None for pipe in pipes] == [False] * 3 + [True] * 2
    assert worker.pipes_made == 3


def test_an_empty_pipe_is_lent_again(probes: ModuleType) -> None:
    worker = probes.Worker(pipes_max=1)
    pipe = worker.take_pipe()
    worker.give_pipe()
    assert worker.take_pipe() == pipe
    assert worker.pipes_made == 1


def test_a_pipe_with_bytes_of_a_dead_connection_is_closed(probes: ModuleType) -> None:
    worker = probes.Worker(pipes_max=1)
    read_end, write_end, _ = worker.take_pipe()
    os.write(write_end, b"secret")
    worker.give_pipe(full=True)
    assert worker.pipes_made == 0
    assert not is_open(read_end)
    assert not is_open(write_end)


def test_idle_pipes_are_few(probes: ModuleType) -> None:
    worker = probes.Worker(pipes_max=20)
    pipes = [worker.take_pipe() for _ in range(20)]
    for _ in pipes:
        worker.give_pipe()
    assert worker.pipes_made == 8
    assert sum(is_open(fd) for pipe in pipes for fd in pipe[:2]) == 16


def test_the_end_of_a_worker_closes_them(probes: ModuleType) -> None:
    worker = probes.Worker(pipes_max=2)
    pipes = [worker.take_pipe() for _ in range(2)]
    worker.give_pipe()
    del worker
    for pipe in pipes:
        for fd in pipe[:2]:
            with pytest.raises(OSError, match="descriptor"):
                os.fstat(fd)
