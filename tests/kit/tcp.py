"""What the kernel knows about the TCP connections of this machine."""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum


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
    """IPv4 sockets with these ports, in one of these states (sock_diag(7)).

    Not from /proc/net/tcp: there the kernel writes a line for every connection that has ended in the last
    minute, and after a few busy tests one look takes half a second.
    """
    found = _dump(states)
    return [end for end in found if local in (None, end.local) and remote in (None, end.remote)]


# linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20
_REQUEST, _DUMP, _DONE = 0x1, 0x300, 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ASKED = struct.Struct("=BBBxI48x")  # family, protocol, more, states, which socket
_TOLD = struct.Struct("=BB2x2s2s44xII")  # family, state, ports, timer, unread


def _dump(states: Collection[State]) -> Iterator[Socket]:
    asked = _ASKED.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, sum(1 << state for state in states))
    length = _HEADER.size + len(asked)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.sendto(_HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 0, 0) + asked, (0, 0))
        while True:
            answer = kernel.recv(1 << 16)
            while answer:
                length, kind, *_ = _HEADER.unpack_from(answer)
                if kind == _DONE:
                    return
                assert kind == _SOCK_DIAG_BY_FAMILY, "the kernel answers with an error"
                _, state, local, remote, _, unread = _TOLD.unpack_from(answer, _HEADER.size)
                yield Socket(
                    int.from_bytes(local, "big"), int.from_bytes(remote, "big"), State(state), unread
                )
                answer = answer[(length + 3) & ~3 :]
