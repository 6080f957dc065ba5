"""What the kernel allows this process, and what it has for us: descriptors, pipes, queues, readiness."""

from __future__ import annotations

import resource
import select
import socket
from pathlib import Path

DESCRIPTORS_KEPT = 128  # for everything that is not a connection
CONNECTIONS_MAX = 4 * 1024 * 1024
PIPE_PAGES = 64  # of 4 KiB: a splice pipe holds 256 KiB
PIPE_PAGES_ALLOWED = 16384  # what the kernel gives an ordinary user where it does not say


def connections_allowed(wanted: int, workers: int, pipes: int) -> int:
    """Raises the soft descriptor limit to the hard one.

    Args:
        wanted: connections asked for, or 0 for as many as there is room for.
        workers: threads, each with descriptors of its own.
        pipes: splice pipes, two descriptors each.

    Returns:
        int: connections there is room for, at most what was wanted.

    Raises:
        ValueError: more are wanted than the limit allows, or it allows none.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    room = (hard - DESCRIPTORS_KEPT - 4 * workers - 2 * pipes) // 2  # a connection has two
    if hard == resource.RLIM_INFINITY or room > CONNECTIONS_MAX:
        room = CONNECTIONS_MAX
    if room < 1:
        raise ValueError(f"max_connections: the descriptor limit {hard} leaves no room for connections")
    if wanted > room:
        raise ValueError(
            f"max_connections: {wanted} need more than the {hard} descriptors allowed; raise the limit "
            f"(LimitNOFILE=, ulimit -n) or ask for at most {room}"
        )
    return wanted or room


def pipes_allowed() -> int:
    """Splice pipes all workers may have: a quarter of what an ordinary user is given (pipe(7))."""
    pages = _number("/proc/sys/fs/pipe-user-pages-soft", PIPE_PAGES_ALLOWED)
    return max(0, min((pages or PIPE_PAGES_ALLOWED) // PIPE_PAGES // 4, 1024))  # 0 pages: no limit


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
