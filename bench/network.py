"""A network namespace of the run's own, so that only the proxies differ.

What a machine is set to would be measured along with them: firewalls and taps on its loopback, and above all
its congestion control. One that paces (BBR) sets a timer for every few segments, on a way where nothing is
ever congested; its ticks land on whoever runs on that CPU, and can cost more than all that a proxy does for a
byte. So the namespace has Linux's default, CUBIC.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

from .ending import undisturbed

CONGESTION_CONTROL = "cubic"
MACHINES = "the machine's"
OWN = "a namespace of its own"
NETLINK_HEADER = struct.Struct("=IHHII")  # netlink(7)


class NoNamespace(Exception):
    """The kernel gives this process none."""


# unshare(2), netdevice(7), rtnetlink(7)
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x41
_NLM_F_REQUEST_ACK_REPLACE_CREATE = 0x505
_NLMSG_ERROR = 2
_RTM_NEWROUTE = 24
_RT_TABLE_LOCAL = 255
_RTPROT_KERNEL = 2
_RT_SCOPE_HOST = 254
_RTN_LOCAL = 2
_RTA_DST, _RTA_OIF, _RTA_PREFSRC, _RTA_METRICS = 1, 4, 7, 8
_RTAX_CC_ALGO = 16
_LOOPBACK = socket.inet_aton("127.0.0.1")


def enter() -> None:
    """Moves this process, which has one thread yet, and all that it starts into a namespace of its own.

    Raises:
        NoNamespace: it may not; nothing has changed.
    """
    _try_in_a_child()
    _enter()


def enter_if_allowed() -> str:
    """As `enter`; who may not stays where he is, and is told so on stderr. Returns which network it is."""
    try:
        enter()
    except NoNamespace as problem:
        print(f"bench: in the machine's network, since there is no other: {problem}", file=sys.stderr)
        return MACHINES
    return OWN


def _try_in_a_child() -> None:
    """There is no way back out of a namespace that turns out to be of no use."""
    reading, writing = os.pipe()
    with undisturbed():
        child = os.fork()
        if child == 0:
            try:
                _enter()
            except OSError as problem:
                os.write(writing, str(problem).encode())
            finally:
                os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        problem = said.read()
    os.waitpid(child, 0)
    if problem:
        raise NoNamespace(problem.decode())


def _enter() -> None:
    try:
        _unshare(_CLONE_NEWNET)
    except PermissionError:  # who is root may
        _unshare_as_user()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP_RUNNING))
    for bits in (8, 32):
        _replace_route(bits)


def congestion_control() -> str:
    """The one of a new connection over the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
        return client.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def _unshare(flags: int) -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(flags) != 0:
        problem = ctypes.get_errno()
        raise OSError(problem, os.strerror(problem))


def _unshare_as_user() -> None:
    """Who is not root needs a user namespace around it, in which he is himself (user_namespaces(7))."""
    user, group = os.getuid(), os.getgid()
    _unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _replace_route(bits: int) -> None:
    """The way to the loopback's addresses, as the kernel has it, with our congestion control."""
    algorithm = _attribute(_RTAX_CC_ALGO, CONGESTION_CONTROL.encode() + b"\0")
    body = struct.pack(
        "=8BI", socket.AF_INET, bits, 0, 0, _RT_TABLE_LOCAL, _RTPROT_KERNEL, _RT_SCOPE_HOST, _RTN_LOCAL, 0
    )
    body += _attribute(_RTA_DST, _LOOPBACK if bits == 32 else socket.inet_aton("127.0.0.0"))
    body += _attribute(_RTA_OIF, struct.pack("=I", socket.if_nametoindex("lo")))
    body += _attribute(_RTA_PREFSRC, _LOOPBACK) + _attribute(_RTA_METRICS, algorithm)
    flags = _NLM_F_REQUEST_ACK_REPLACE_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.send(NETLINK_HEADER.pack(NETLINK_HEADER.size + len(body), _RTM_NEWROUTE, flags, 0, 0) + body)
        answer = kernel.recv(4096)
    _, kind, *_ = NETLINK_HEADER.unpack_from(answer)
    problem = -struct.unpack_from("=i", answer, NETLINK_HEADER.size)[0] if kind == _NLMSG_ERROR else 0
    if problem:
        raise OSError(problem, f"a route with {CONGESTION_CONTROL}: {os.strerror(problem)}")


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)
