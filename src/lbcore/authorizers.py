"""Running the authorizer off the data path.

The engine's policy thread hands each question over; the answer comes back through a callback. Sync
callables run on a small pool, async ones on a loop of their own, so neither can hold up logs, health or
signals, and an embedder needs no loop. Every answer has a deadline, and no answer is a refusal.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from lbcore.peer import PeerCertificate, Verdict

Authorizer = Callable[[PeerCertificate, str], Verdict | Awaitable[Verdict]]
#: Called once for each question, on any thread; None: no usable answer, refuse with authz_error.
Answer = Callable[[Verdict | None], None]

log = logging.getLogger("lbcore.authorize")


class AuthorizerPool:
    """Calls authorizers; made, used and closed by one engine.

    Args:
        threads: sync authorizers running at once.
        timeout: seconds an async authorizer may take; sync ones cannot be interrupted, their
            connections are refused at the same deadline by the worker.

    Thread-safety: ``submit`` from one thread at a time, the rest from any.
    """

    def __init__(self, threads: int, timeout: float) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="lbcore-authorize")
        self._timeout = timeout
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def submit(
        self, authorizer: Authorizer, peer: PeerCertificate, application: str, deadline: float, answer: Answer
    ) -> None:
        """Puts one question. ``deadline`` is on time.monotonic(): a question that waited past it in the
        queue is dropped unasked, its connections are gone by then."""
        if inspect.iscoroutinefunction(authorizer):
            self._run_async(authorizer(peer, application), answer)
        else:
            self._pool.submit(self._run_sync, authorizer, peer, application, deadline, answer)

    def close(self) -> None:
        """Ends the loop and takes no more questions; a sync authorizer that hangs is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            if self._loop is not None and self._loop_thread is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop_thread.join()
                self._loop = None

    def _run_sync(
        self, authorizer: Authorizer, peer: PeerCertificate, application: str, deadline: float, answer: Answer
    ) -> None:
        if time.monotonic() >= deadline:
            answer(None)
            return
        try:
            verdict = authorizer(peer, application)
        except Exception:
            log.exception("the authorizer failed for serial %s, application %s", peer.serial_hex, application)
            answer(None)
            return
        if inspect.isawaitable(verdict):
            self._run_async(verdict, answer)
        else:
            answer(verdict)

    def _run_async(self, verdict: Awaitable[Verdict], answer: Answer) -> None:
        async def settle() -> None:
            try:
                answer(await asyncio.wait_for(verdict, self._timeout))
            except Exception:
                log.exception("the async authorizer failed")
                answer(None)

        asyncio.run_coroutine_threadsafe(settle(), self._running_loop())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop_thread = threading.Thread(
                    target=self._serve_loop, args=(self._loop,), name="lbcore-policy-loop", daemon=True
                )
                self._loop_thread.start()
            return self._loop

    @staticmethod
    def _serve_loop(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(_cancel_others())
            loop.close()


async def _cancel_others() -> None:
    """Ends every other task of the running loop."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
