"""Running authorizers off the data path.

The policy thread hands each question over; the answer comes back through a callback. Sync callables run
on a few threads, async ones on a loop of their own, so neither can hold up logs, health or signals, and
an embedder needs no loop. Whatever a callable does, its question gets one answer, and none in time is a
refusal.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from lbcore.peer import PeerCertificate, Undecided, Verdict

Authorizer = Callable[[PeerCertificate, str], Verdict | Awaitable[Verdict]]

LOOP_STOPS_WITHIN = 1.0  # seconds for tasks to end when the pool closes

log = logging.getLogger("lbcore.authorize")


class Question:
    """One certificate at one listener, asked for however many connections wait for the answer.

    Args:
        authorizer: who is asked.
        peer: about whom.
        application: its name.
        deadline: on time.monotonic(), when the last of those connections gives up; grows.
        answer: called at most once, on any thread, with a Verdict or whatever else the authorizer
            returned; with None when it failed.
        forget: called instead when nobody waits any more; false: somebody does after all.
    """

    def __init__(
        self,
        authorizer: Authorizer,
        peer: PeerCertificate,
        application: str,
        deadline: float,
        answer: Callable[[object], None],
        forget: Callable[[], bool],
    ) -> None:
        self.authorizer = authorizer
        self.peer = peer
        self.application = application
        self.deadline = deadline
        self.answer = answer
        self.forget = forget

    def __str__(self) -> str:
        return f"serial {self.peer.serial_hex}, application {self.application}"


class AuthorizerPool:
    """Calls authorizers; made, used and closed by one engine.

    Its threads are daemons: an authorizer that hangs holds up neither `close` nor the end of the process.

    Args:
        threads: sync authorizers running at once.
        timeout: seconds an async authorizer may take; sync ones cannot be interrupted, their
            connections are refused at the same deadline by the worker.

    Thread-safety: every method may be called from any thread; none raises what an authorizer raises.
    """

    def __init__(self, threads: int, timeout: float) -> None:
        self._wanted = threads
        self._timeout = timeout
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._threads: list[threading.Thread] = []
        self._idle = 0  # threads that wait for a question
        self._waiting: deque[Question] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._closed = False

    def submit(self, question: Question) -> None:
        """Puts one question; one that waits past its deadline is dropped unasked."""
        if inspect.iscoroutinefunction(question.authorizer):
            self._ask_async(question, None)
            return
        with self._lock:
            if self._closed:
                return
            self._waiting.append(question)
            # One that was told of a question stays idle until it runs: count both, or a question
            # could be left behind one that hangs.
            if len(self._waiting) > self._idle and len(self._threads) < self._wanted:
                name = f"lbcore-authorize-{len(self._threads)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
            else:
                self._arrived.notify()

    def owns(self, thread: threading.Thread) -> bool:
        """Whether it is one of this pool's."""
        with self._lock:
            return thread is self._loop_thread or thread in self._threads

    def close(self) -> None:
        """Takes no more questions and ends the threads; one that is inside an authorizer ends after it."""
        with self._lock:
            self._closed = True
            loop, thread = self._loop, self._loop_thread
            self._waiting.clear()
            self._arrived.notify_all()
        if loop is not None and thread is not None:
            with contextlib.suppress(RuntimeError):  # it is closed: something ended it
                loop.call_soon_threadsafe(loop.stop)
            thread.join(LOOP_STOPS_WITHIN)

    # ---- sync

    def _serve(self) -> None:
        while (question := self._next()) is not None:
            self._ask(question)

    def _next(self) -> Question | None:
        """The question that waits longest; None at the end."""
        with self._lock:
            self._idle += 1
            self._arrived.wait_for(lambda: self._waiting or self._closed)
            self._idle -= 1
            return None if self._closed else self._waiting.popleft()

    def _ask(self, question: Question) -> None:
        if time.monotonic() >= question.deadline and question.forget():
            return
        try:
            verdict = question.authorizer(question.peer, question.application)
        except Undecided:
            question.answer(None)
            return
        except BaseException:  # SystemExit too: it must cost neither the thread nor the answer
            log.exception("the authorizer failed for %s", question)
            question.answer(None)
            return
        if inspect.isawaitable(verdict):
            self._ask_async(question, verdict)
        else:
            question.answer(verdict)

    # ---- async

    def _ask_async(self, question: Question, started: Awaitable[Verdict] | None) -> None:
        """Runs a coroutine function, or what a plain function returned, on the loop."""
        settling = self._settle(question, started)
        with self._lock:
            loop = self._running_loop()
            if loop is not None:
                asyncio.run_coroutine_threadsafe(settling, loop)
                return
        settling.close()

    async def _settle(self, question: Question, started: Awaitable[Verdict] | None) -> None:
        try:
            verdict = started or question.authorizer(question.peer, question.application)
            answer: object = await asyncio.wait_for(_awaited(verdict), self._timeout)
        except Undecided:
            answer = None
        except BaseException:  # SystemExit too: it must cost neither the loop nor the answer
            if not self._closed:
                log.exception("the authorizer failed for %s", question)
            answer = None
        question.answer(answer)

    def _running_loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop, started for the first question; None after `close`. Called with the lock held."""
        if self._closed:
            return None
        if self._loop is None or self._loop.is_closed():
            loop = asyncio.new_event_loop()
            thread = threading.Thread(
                target=_serve_loop, args=(loop,), name="lbcore-policy-loop", daemon=True
            )
            thread.start()
            self._loop, self._loop_thread = loop, thread
        return self._loop


async def _awaited(verdict: Any) -> object:
    """What an authorizer returned, awaited where it can be."""
    try:
        return await verdict if inspect.isawaitable(verdict) else verdict
    except (KeyboardInterrupt, SystemExit) as error:  # asyncio would end the loop with it
        raise RuntimeError(f"an authorizer raised {type(error).__name__}") from error


def _serve_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_cancel_others())
        loop.close()


async def _cancel_others() -> None:
    """Ends every other task of the running loop, for a bounded time."""
    await asyncio.sleep(0)  # what was handed over last becomes a task
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=LOOP_STOPS_WITHIN)
