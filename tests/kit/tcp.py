"""What the kernel knows about the TCP connections of this machine."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path


class State(IntEnum):
    """As the kernel counts them (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


#: Where a socket stays when one side has ended and the other one has forgotten to.
HALF_CLOSED = (State.CLOSE_WAIT, State.FIN_WAIT2)


@dataclass(frozen=True)
class Socket:
    """One end of a connection, or what is left of it.

    Attributes:
        local, remote: ports.
        state: where it is in its life.
        unread: bytes that have arrived and that its owner has not read.
    """

    local: int
    remote: int
    state: State
    unread: int


def sockets(
    *, local: int | None = None, remote: int | None = None, states: Collection[State] = (State.ESTABLISHED,)
) -> list[Socket]:
    """IPv4 sockets with these ports, in one of these states (proc(5), /proc/net/tcp)."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, here, there, state, queues, *_ = line.split()
        socket = Socket(_port(here), _port(there), State(int(state, 16)), int(queues.partition(":")[2], 16))
        if local in (None, socket.local) and remote in (None, socket.remote) and socket.state in states:
            found.append(socket)
    return found


def _port(address: str) -> int:
    return int(address.partition(":")[2], 16)
