"""Questions that have to be asked elsewhere wait beside those that have not.

The engine runs authorizers on a few threads. Whom the configuration lists is decided there at once; for
everybody else the engine gets something to wait for, and other threads do the asking. So a store that hangs
costs those it knows, and nobody whom the configuration knows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from lbcore import PeerCertificate, Undecided, Verdict
from lbctl.policy.authorizer import Authorizer
from lbctl.policy.outage import SAY_AGAIN, Say
from lbctl.policy.rules import Rules

THREADS = 32  # questions that may be with the store at once; more wait
PATIENCE = 0.8  # of authorize_timeout, so that the connection still gets its answer


class Deferred:
    """An `Authorizer` that keeps the engine's threads free.

    Args:
        authorizer: decides; may block.
        rules: whom it lists is decided at once.
        timeout: `authorize_timeout`, seconds.
        say: how the operator hears that there are more questions than answers.

    Thread-safety: may be called from any thread.
    """

    def __init__(self, authorizer: Authorizer, rules: Rules, timeout: float, say: Say) -> None:
        self._authorizer = authorizer
        self._rules = rules
        self._patience = timeout * PATIENCE
        self._say = say
        self._said_at = float("-inf")
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="lbctl-store")

    def __call__(self, peer: PeerCertificate, app: str) -> Verdict | Awaitable[Verdict]:
        """The verdict, or what to await for it.

        Raises:
            Undecided: this was closed.
        """
        if self._rules.record(peer.serial) is not None:
            return self._authorizer(peer, app)
        try:
            return _Later(self._threads.submit(self._authorizer, peer, app), self._patience, self._late)
        except RuntimeError:
            raise Undecided("closed") from None

    def close(self) -> None:
        """Asks nothing more; a question that is under way ends by its own deadline."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _late(self) -> None:
        """On the engine's loop, one at a time."""
        now = time.monotonic()
        if now >= self._said_at + SAY_AGAIN:
            self._said_at = now
            message = f"no verdict within {self._patience:g} s: too many questions, or too slow answers"
            self._say("client_store.overloaded", message=message)


class _Later:
    """A verdict to await. Not a coroutine: one that nobody comes to await would be complained about."""

    def __init__(self, verdict: Future[Verdict], patience: float, late: Any) -> None:
        self._verdict = verdict
        self._patience = patience
        self._late = late

    def __await__(self) -> Generator[Any, None, Verdict]:
        return self._wait().__await__()

    async def _wait(self) -> Verdict:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(self._verdict), self._patience)
        except TimeoutError:
            self._late()
            raise Undecided("the client store does not answer") from None
