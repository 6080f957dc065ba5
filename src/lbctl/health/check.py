"""One check of one upstream."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import Protocol

from lbctl.health.encrypted import Encrypted
from lbctl.health.failures import of_answer, of_end, of_system
from lbctl.health.plain import Plain, close, connect, open_socket
from lbctl.health.plan import Plan

# How long a verdict on our certificate is waited for that may never come: so many times what the handshake
# took, which had as much to do, but not less than so many seconds, and half of what is left at most.
_VERDICT_FACTOR, _VERDICT_LEAST = 3.0, 0.2


class _Stream(Protocol):
    async def send(self, data: bytes) -> None: ...
    async def receive(self, size: int) -> bytes: ...


async def check(plan: Plan, deadline: float) -> None:
    """Returns when the upstream has passed. Whoever calls it cancels it at the deadline.

    An upstream that wants a certificate judges ours after the handshake. Where an answer is expected, that
    tells; else its verdict is waited for, and one that says nothing is believed.

    Args:
        plan: the upstream's.
        deadline: by the loop's clock.

    Raises:
        CheckFailed: it has not passed.
        Unjudged: this machine lacks something.
    """
    try:
        sock = open_socket(plan.family)
        try:
            await connect(sock, plan.address)
            if plan.context is None:
                await _talk_plain(plan, sock)
            else:
                await _talk_encrypted(plan, plan.context, sock, deadline)
        finally:
            close(sock)
    except OSError as error:
        raise of_system(error) from None


async def _talk_plain(plan: Plan, sock: socket.socket) -> None:
    stream = Plain(sock)
    data = (plan.settings.proxy or b"") + (plan.settings.send or b"")
    if data:
        await stream.send(data)
    if plan.settings.expect is not None:
        await _expect(stream, plan.settings.expect)


async def _talk_encrypted(plan: Plan, context: ssl.SSLContext, sock: socket.socket, deadline: float) -> None:
    settings = plan.settings
    expected = settings.expect or b""
    stream = Encrypted(sock, context, plan.name or "", settings.proxy or b"", len(expected))
    try:
        loop = asyncio.get_running_loop()
        began = loop.time()
        wants_certificate = await stream.shake_hands()
        took = loop.time() - began
        await stream.send(settings.send or b"")
        if expected:
            await _expect(stream, expected)
        elif wants_certificate:
            patience = max(_VERDICT_FACTOR * took, _VERDICT_LEAST)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(patience, (deadline - loop.time()) / 2)):
                    await stream.hear_verdict()
    finally:
        stream.say_goodbye()


async def _expect(stream: _Stream, expected: bytes) -> None:
    """Reads no more than that."""
    answer = b""
    while len(answer) < len(expected):
        part = await stream.receive(len(expected) - len(answer))
        if not part:
            raise of_end(answer)
        answer += part
        if not expected.startswith(answer):
            raise of_answer(answer, expected)
