"""The thread that looks names up: an event loop of its own, and nothing of it on any other thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lbctl.errors import LbctlError
from lbctl.names.dependency import missing
from lbctl.names.hosts_file import HOSTS, HostsFile
from lbctl.names.servers import RESOLV_CONF, Servers
from lbctl.names.values import Found, NameOf
from lbctl.names.watch import Watch

logger = logging.getLogger("lbctl.names")

LOOKUP_TIMEOUT = 5.0  # seconds one look-up may take, from when its turn has come
LOOKUPS_AT_ONCE = 32  # with `questions.QUESTIONS_AT_ONCE` sockets at most, each
_STOP_TIMEOUT = 10.0  # seconds a callback may still take while the thread ends

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """A name that was added. Compared by identity: removed and added again, it starts anew."""

    name: NameOf


class Resolver(Generic[Key]):
    """Keeps names looked up.

    Args:
        on_answer: called with a key and all that was found, in the order of addresses: the first time,
            and whenever that has changed. Never with nothing.
        on_problem: called with a key and a sentence, once until the words change or it is over.
        on_recovered: called with a key when a problem is over.
        nameservers: IP addresses, with or without a port, instead of those of `resolv_conf`.
        resolv_conf: the file of name servers and search list.
        hosts: the file of names that need no DNS.
        timeout: seconds a look-up may take.

    Thread-safety: every method may be called from any thread. The callbacks run on the thread of the
    resolver, one at a time; while one runs, no name is looked up, so it should be quick. It may call
    `add`, `remove` and `stop`. What it raises is logged.

    Raises:
        ValueError: a name server is not an address.
    """

    def __init__(
        self,
        on_answer: Callable[[Key, tuple[Found, ...]], None],
        on_problem: Callable[[Key, str], None],
        on_recovered: Callable[[Key], None] | None = None,
        *,
        nameservers: Sequence[str] | None = None,
        resolv_conf: Path = RESOLV_CONF,
        hosts: Path = HOSTS,
        timeout: float = LOOKUP_TIMEOUT,
    ) -> None:
        self._on_answer = on_answer
        self._on_problem = on_problem
        self._on_recovered = on_recovered
        self._servers = Servers(nameservers, resolv_conf)
        self._hosts = HostsFile(hosts)
        self._timeout = timeout
        self._lock = threading.Lock()  # of what follows
        self._wanted: dict[Key, _Wanted] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # while it takes calls
        self._waking = False
        self._stopped = False
        # Used on the thread alone.
        self._following: dict[Key, tuple[_Wanted, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Starts the thread; what was added before is looked up now. May be called once.

        Raises:
            LbctlError: dnspython is not installed.
            RuntimeError: it was started, or stopped, before.
        """
        problem = missing()
        if problem is not None:
            raise LbctlError(problem)
        with self._lock:
            if self._thread is not None or self._stopped:
                raise RuntimeError("a Resolver is started once")
            self._thread = threading.Thread(target=self._run, name="names", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread and every question under way. May be called again.

        Returns when the thread has ended, unless it is called by a callback. Then no callback comes any more.
        """
        with self._lock:
            self._stopped = True
            thread = self._thread
            self._wake()
        if thread is None or thread is threading.current_thread():
            return
        thread.join(_STOP_TIMEOUT)
        if thread.is_alive():
            logger.error("the thread of names does not end: a callback is still busy")

    def add(self, key: Key, name: NameOf) -> None:
        """Has a name looked up from now on. The same name under the same key changes nothing; another one
        takes its place and starts anew."""
        with self._lock:
            known = self._wanted.get(key)
            if known is None or known.name != name:
                self._wanted[key] = _Wanted(name)
                self._wake()

    def remove(self, key: Key) -> None:
        """Ends that. A callback that has begun may still run when this returns; no other one begins. A key
        that is not there is passed over."""
        with self._lock:
            if self._wanted.pop(key, None) is not None:
                self._wake()

    # ---- between the threads

    def _wake(self) -> None:
        """Has the thread look at what is wanted. Called with the lock held."""
        if self._loop is not None and not self._waking:
            self._waking = True
            self._loop.call_soon_threadsafe(self._look_at_wanted)

    def _is_wanted(self, key: Key, wanted: _Wanted) -> bool:
        with self._lock:
            return not self._stopped and self._wanted.get(key) is wanted

    # ---- on the thread

    def _run(self) -> None:
        try:
            asyncio.run(self._main())  # which ends the tasks, too
        except Exception:
            logger.exception("the thread of names ended")

    async def _main(self) -> None:
        self._end = asyncio.Event()
        self._turns = asyncio.Semaphore(LOOKUPS_AT_ONCE)
        with self._lock:
            self._loop = asyncio.get_running_loop()
        try:
            self._look_at_wanted()
            await self._end.wait()
        finally:
            with self._lock:
                self._loop = None

    def _look_at_wanted(self) -> None:
        with self._lock:
            self._waking = False
            wanted = {} if self._stopped else dict(self._wanted)
            if self._stopped:
                self._end.set()
        for key, (followed, task) in list(self._following.items()):
            if wanted.get(key) is not followed:
                del self._following[key]
                task.cancel()
        for key, new in wanted.items():
            if key not in self._following:
                task = asyncio.get_running_loop().create_task(self._follow(key, new))
                self._following[key] = new, task
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _follow(self, key: Key, wanted: _Wanted) -> None:
        listener = _Told(self, key, wanted)
        watch = Watch(wanted.name, self._servers, self._hosts, self._timeout, listener)
        while self._is_wanted(key, wanted):
            async with self._turns:
                pause = await watch.look()
            if self._is_wanted(key, wanted):  # Python 3.11 may lose a cancel at the moment an answer comes
                await asyncio.sleep(pause)


class _Told(Generic[Key]):
    """The callbacks of a resolver for one name, as long as it is wanted."""

    def __init__(self, resolver: Resolver[Key], key: Key, wanted: _Wanted) -> None:
        self._resolver = resolver
        self._key = key
        self._wanted = wanted

    def answer(self, found: tuple[Found, ...]) -> None:
        if self._is_wanted():
            self._resolver._on_answer(self._key, found)

    def problem(self, words: str) -> None:
        if self._is_wanted():
            self._resolver._on_problem(self._key, words)

    def recovered(self) -> None:
        if self._is_wanted() and self._resolver._on_recovered is not None:
            self._resolver._on_recovered(self._key)

    def _is_wanted(self) -> bool:
        return self._resolver._is_wanted(self._key, self._wanted)
