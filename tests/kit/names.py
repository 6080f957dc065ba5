"""A resolver of names for tests, and what it told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kit.waiting import wait_until
from lbctl.names import Found, NameOf, Resolver
from lbctl.names.hosts_file import HostsFile
from lbctl.names.lookup import Lookup, Outcome
from lbctl.names.questions import Questions
from lbctl.names.servers import Servers

if TYPE_CHECKING:
    from kit.dns_server import DnsServer

NOWHERE = Path("/nonexistent/file")
#: Seconds a look-up may take: enough for a busy machine.
TIMEOUT = 4.0


class Names:
    """A resolver that runs and asks one server.

    Args:
        server: it.
        resolv_conf: with the search list.
        hosts: like /etc/hosts.
        timeout: seconds.
        on_answer: called besides.

    Attributes:
        answers: of each key, all that were told.
        problems: of each key, all that were told.
        recovered: keys, in order.
    """

    def __init__(
        self,
        server: DnsServer,
        *,
        resolv_conf: Path = NOWHERE,
        hosts: Path = NOWHERE,
        timeout: float = TIMEOUT,
        on_answer: Callable[[str], None] | None = None,
    ) -> None:
        self.answers: dict[str, list[tuple[Found, ...]]] = {}
        self.problems: dict[str, list[str]] = {}
        self.recovered: list[str] = []
        self._on_answer = on_answer
        self.resolver: Resolver[str] = Resolver(
            self._answered,
            lambda key, words: self.problems.setdefault(key, []).append(words),
            self.recovered.append,
            nameservers=[server.address],
            resolv_conf=resolv_conf,
            hosts=hosts,
            timeout=timeout,
        )
        self.resolver.start()

    def _answered(self, key: str, found: tuple[Found, ...]) -> None:
        self.answers.setdefault(key, []).append(found)
        if self._on_answer is not None:
            self._on_answer(key)

    def add(self, name: str, port: int = 80, *, key: str | None = None) -> None:
        """Follows a host, under its own name when no key is given."""
        self.resolver.add(key or name, NameOf("dns", name, port))

    def last(self, key: str) -> list[str]:
        """The addresses told last."""
        return [found.address for found in self.answers.get(key, [()])[-1]]

    def wait_for(self, key: str, *addresses: str) -> None:
        """Until these were told last."""
        wait_until(lambda: self.last(key) == list(addresses), f"{key} at {addresses}: {self.answers}")

    def wait_for_problem(self, key: str, count: int = 1) -> str:
        """The last problem, when so many were told."""
        wait_until(lambda: len(self.problems.get(key, ())) >= count, f"problem {count} of {key}")
        return self.problems[key][-1]

    def close(self) -> None:
        """Stops it."""
        self.resolver.stop()


class OneName:
    """Looks up one name when it is told to, on this thread.

    Args:
        server: who is asked.
        name: the name.
        resolv_conf: with the search list.
        timeout: seconds.
        before: servers that are asked first.
    """

    def __init__(
        self,
        server: DnsServer,
        name: NameOf,
        resolv_conf: Path = NOWHERE,
        timeout: float = TIMEOUT,
        before: Sequence[str] = (),
    ) -> None:
        self._servers = Servers([*before, server.address], resolv_conf)
        self._lookup = Lookup(name, HostsFile(NOWHERE))
        self._timeout = timeout

    def look_up(self) -> Outcome:
        """What comes of it."""
        return asyncio.run(self._ask())

    def addresses(self) -> list[str]:
        """Those that are found."""
        return [found.address for found in self.look_up().found]

    async def _ask(self) -> Outcome:
        deadline = asyncio.get_running_loop().time() + self._timeout
        return await self._lookup.ask(Questions(self._servers.current()), deadline)
