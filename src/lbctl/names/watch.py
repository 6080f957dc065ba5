"""One name: what was told of it, and what is new."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from lbctl.names.hosts_file import HostsFile
from lbctl.names.lookup import Lookup, Outcome, nothing
from lbctl.names.questions import Questions
from lbctl.names.schedule import Schedule
from lbctl.names.servers import Servers
from lbctl.names.values import Found, LookupFailed, NameOf

logger = logging.getLogger("lbctl.names")

_PROBLEMS_MAX = 4  # named in one sentence


class Listener(Protocol):
    """Hears what is new of a name."""

    def answer(self, found: tuple[Found, ...]) -> None: ...

    def problem(self, words: str) -> None: ...

    def recovered(self) -> None: ...


class Watch:
    """Follows one name.

    Args:
        name: the name.
        servers: who is asked.
        hosts: what is known without asking.
        timeout: seconds a look-up may take.
        listener: hears what is new. What it raises is logged.

    Thread-safety: none; used within one event loop.
    """

    def __init__(
        self, name: NameOf, servers: Servers, hosts: HostsFile, timeout: float, listener: Listener
    ) -> None:
        self._name = name
        self._servers = servers
        self._lookup = Lookup(name, hosts)
        self._timeout = timeout
        self._listener = listener
        self._schedule = Schedule()
        self._told: tuple[Found, ...] = ()
        self._problem = ""

    async def look(self) -> float:
        """Looks the name up, tells what is new, and says in how many seconds to look again."""
        try:
            outcome = await self._look_up()
        except LookupFailed as failure:
            outcome = nothing(str(failure))
        except Exception:
            logger.exception("%s could not be looked up", self._name.name)
            outcome = nothing("an error of this program")
        self._tell(outcome)
        return self._schedule.pause(outcome.ttl, failed=outcome.failed)

    async def _look_up(self) -> Outcome:
        known = self._lookup.from_file()
        if known is not None:
            return known
        deadline = asyncio.get_running_loop().time() + self._timeout
        return await self._lookup.ask(Questions(self._servers.current()), deadline)

    def _tell(self, outcome: Outcome) -> None:
        if outcome.found and outcome.found != self._told:
            self._told = outcome.found
            _call(self._listener.answer, outcome.found)
        words = self._sentence(outcome.problems)
        if words != self._problem:
            self._problem = words
            if words:
                _call(self._listener.problem, words)
            else:
                _call(self._listener.recovered)

    def _sentence(self, problems: tuple[str, ...]) -> str:
        """The name and its problems; nothing when there is none."""
        if not problems:
            return ""
        more = len(problems) - _PROBLEMS_MAX
        named = "; ".join(problems[:_PROBLEMS_MAX])
        return f"{self._name.name}: {named}" + (f"; and {more} more" if more > 0 else "")


def _call(told: Callable[..., None], *values: object) -> None:
    """Tells. The error of who is told is its own, and no reason to stop looking."""
    try:
        told(*values)
    except Exception:
        logger.exception("an error while telling what became of a name")
