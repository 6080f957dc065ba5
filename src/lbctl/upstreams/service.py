"""All pools, with the look-ups and the checks that drive them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from lbctl.config.faults import dotted
from lbctl.errors import LbctlError
from lbctl.health import Checker, Result, Target
from lbctl.names import Found, Resolver
from lbctl.upstreams.pool import Pool
from lbctl.upstreams.server import check
from lbctl.upstreams.watch import Alert, Watch

FIRST_ANSWERS = 2.0  # seconds that the start waits for names

Key = tuple[str, int]  # an app, and the place of a name in its `upstreams`


class Upstreams:
    """Keeps the servers of all apps up to date.

    Args:
        pools: by the name of the app.
        say: gets events.
        alert: gets alerts.
        name_servers: who is asked for names; by default those of the system.

    Thread-safety: `start`, `tick` and `stop` from one thread.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        say: Callable[..., None],
        alert: Alert,
        name_servers: Sequence[str] = (),
    ) -> None:
        self._pools, self._say = pools, say
        self._watch = Watch(say, alert)
        self._names = {(pool.name, index): name for pool in pools.values() for index, name in pool.names()}
        checked = any(pool.app.health.active is not None for pool in pools.values())
        self._checker = Checker(self._on_result) if checked else None
        self._resolver = self._make_resolver(name_servers) if self._names else None
        self._taking = threading.Lock()  # one answer at a time
        self._unfinished: dict[Key, tuple[Sequence[Found], str]] = {}  # and what was told of it
        self._changing = threading.Lock()  # of the targets
        self._targets: dict[str, dict[str, Target]] = {}
        self._heard: set[Key] = set()
        self._all_heard = threading.Event()

    def start(self) -> None:
        """Starts to look up and to check. Waits for the first answers, for a bounded time.

        Raises:
            LbctlError: a file that checks need cannot be used, or dnspython is not installed.
        """
        for pool in self._pools.values():
            try:
                self._retarget(pool)
            except (OSError, ValueError) as error:
                raise LbctlError(f"{dotted(('apps', pool.name, 'health', 'active'))}: {error}") from None
        if self._resolver is not None:
            for key, name in self._names.items():
                self._resolver.add(key, name)
            self._resolver.start()
            self._all_heard.wait(FIRST_ANSWERS)
        if self._checker is not None:
            self._checker.start()

    def stop(self) -> None:
        """Ends look-ups and checks."""
        if self._resolver is not None:
            self._resolver.stop()
        if self._checker is not None:
            self._checker.stop()

    def tick(self) -> None:
        """Once a second: says what has changed, lets those go that have left, and tries again what failed."""
        with self._taking:
            for key, (found, _) in list(self._unfinished.items()):
                self._take(key, found)
        for pool in self._pools.values():
            pool.sweep()
        self._watch.look(self._pools.values())

    # ---- names; on the resolver's thread

    def _make_resolver(self, servers: Sequence[str]) -> Resolver[Key]:
        return Resolver(self._on_answer, self._on_problem, self._on_recovered, nameservers=servers or None)

    def _on_answer(self, key: Key, found: Sequence[Found]) -> None:
        with self._taking:
            self._take(key, found)
        self._hear(key)

    def _take(self, key: Key, found: Sequence[Found]) -> None:
        """Makes them the servers that the name stands for. What cannot be done now, because a file is just
        then replaced, is tried again, and told once. Called with `_taking` held."""
        app, index = key
        pool = self._pools[app]
        before = {address for _, address in pool.wanted()}
        problem = ""
        try:
            pool.answer(index, found)
        except (OSError, RuntimeError, ValueError) as error:
            problem = f"a server of {self._place(key)} cannot be used: {error}"
        after = {address for _, address in pool.wanted()}
        for address in sorted(after - before):
            self._say("upstream", app=app, upstream=address, state="ADDED", message=self._place(key))
        for address in sorted(before - after):
            self._say("upstream", app=app, upstream=address, state="REMOVED", message=self._place(key))
        try:
            self._retarget(pool)
        except (OSError, ValueError) as error:
            problem = f"a server of {self._place(key)} cannot be checked: {error}"
        _, told = self._unfinished.pop(key, ((), ""))
        if problem:
            self._unfinished[key] = found, problem
            if problem != told:
                self._say("names", app=app, name=self._place(key), state="FAILED", message=problem)

    def _on_problem(self, key: Key, problem: str) -> None:
        self._say("names", app=key[0], name=self._place(key), state="FAILED", message=problem)
        self._hear(key)

    def _on_recovered(self, key: Key) -> None:
        self._say("names", app=key[0], name=self._place(key), state="OK")

    def _hear(self, key: Key) -> None:
        self._heard.add(key)
        if len(self._heard) == len(self._names):
            self._all_heard.set()

    def _place(self, key: Key) -> str:
        app, index = key
        return self._pools[app].app.upstreams[index].place

    # ---- checks; results come on the checker's thread

    def _retarget(self, pool: Pool) -> None:
        """Checks those that are wanted, and no others."""
        if self._checker is None or pool.app.health.active is None:
            return
        with self._changing:
            targets = self._targets.setdefault(pool.name, {})
            wanted = {address: index for index, address in pool.wanted()}
            for address in [address for address in targets if address not in wanted]:
                self._checker.remove(targets.pop(address))
            for address in [address for address in wanted if address not in targets]:
                settings = check(pool.app, pool.app.health.active, pool.app.upstreams[wanted[address]])
                target = Target(pool.name, address, settings)
                self._checker.add(target)
                targets[address] = target

    def _on_result(self, target: Target, result: Result) -> None:
        self._watch.checked(
            self._pools[target.app],
            target.address,
            up=result.state == "up",
            passed=result.passed,
            message=_words(result),
        )


def _words(result: Result) -> str:
    checks = "1 check" if result.count == 1 else f"{result.count} checks"
    return f"{checks} passed" if result.passed else f"{checks} failed: {result.message}"
