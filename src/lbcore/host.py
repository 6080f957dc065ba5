"""What the kernel allows this process, and what it has for us: descriptors, pipes, queues, readiness."""

from __future__ import annotations

import resource
import select
import socket
from pathlib import Path
from typing import NamedTuple

DESCRIPTORS_KEPT = 128  # for everything that is not a connection
STRANGERS_LEAST = 64  # whatever is asked for: with fewer, honest clients that come together evict each other
CONNECTIONS_MAX = 4 * 1024 * 1024
PIPE_PAGES_ALLOWED = 16384  # what the kernel gives an ordinary user where it does not say


class Room(NamedTuple):
    """What the descriptor limit has room for.

    Attributes:
        connections: at once, two descriptors each.
        strangers: TLS sockets that were not let in, besides, one descriptor each.
    """

    connections: int
    strangers: int


def room_for(connections: int, strangers: int, *, workers: int, pipes: int) -> Room:
    """Raises the soft descriptor limit to the hard one and divides it.

    Args:
        connections: asked for, or 0 for as many as there is room for.
        strangers: at most; where descriptors are few, a quarter of them, or what `connections` leave.
        workers: threads, each with descriptors of its own.
        pipes: splice pipes, two descriptors each.

    Raises:
        ValueError: more connections are wanted than the limit allows, or it allows none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    left = hard - DESCRIPTORS_KEPT - 4 * workers - 2 * pipes
    strangers = min(strangers, CONNECTIONS_MAX)
    if hard == resource.RLIM_INFINITY or left > 2 * CONNECTIONS_MAX + strangers:
        left = 2 * CONNECTIONS_MAX + strangers
    most = (left - min(strangers, STRANGERS_LEAST)) // 2
    if most < 1:
        raise ValueError(f"max_connections: the descriptor limit {hard} leaves no room for connections")
    if connections > most:
        raise ValueError(
            f"max_connections: {connections} need more than the {hard} descriptors allowed; raise the limit "
            f"(LimitNOFILE=, ulimit -n) or ask for at most {most}"
        )
    strangers = min(strangers, left - 2 * connections if connections else max(STRANGERS_LEAST, left // 4))
    return Room(connections or (left - strangers) // 2, strangers)


def pipes_allowed(pipe_bytes: int) -> int:
    """Splice pipes of that size all workers may have: a quarter of what a user is given (pipe(7))."""
    pages = _number("/proc/sys/fs/pipe-user-pages-soft", PIPE_PAGES_ALLOWED)
    of_a_pipe = pipe_bytes // resource.getpagesize()
    return max(0, min((pages or PIPE_PAGES_ALLOWED) // of_a_pipe // 4, 1024))  # 0 pages: no limit


def somaxconn() -> int:
    """The kernel's limit of a listening queue (listen(2))."""
    return _number("/proc/sys/net/core/somaxconn", socket.SOMAXCONN)


def _number(path: str, otherwise: int) -> int:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return otherwise


def wait_readable(fd: int, timeout: float | None) -> bool:
    """Whether the descriptor became readable within ``timeout`` seconds (None: for ever)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))
