"""One look-up: what is asked in which order, and what comes of it."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from lbctl.config.values import shorten
from lbctl.logs.printable import printable
from lbctl.names.hosts import NO_SUCH_NAME, Asks, HostAnswer, Known, ask_host
from lbctl.names.hosts_file import HOSTS_TTL, HostsFile
from lbctl.names.places import choose, places
from lbctl.names.values import Found, IPAddress, LookupFailed, NameOf, Service

TARGETS_MAX = 256  # hosts of one service that are asked about
_NO_SERVICE = "."


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a look-up.

    Attributes:
        found: the answer, in the order of addresses; empty: there is none, and what was found before holds.
        ttl: seconds the answer holds; infinite when nothing new was said.
        problems: what the operator should hear, in an order that does not change.
        failed: it should be tried again sooner.
    """

    found: tuple[Found, ...]
    ttl: float
    problems: tuple[str, ...]
    failed: bool


def nothing(*problems: str) -> Outcome:
    """The outcome that changes nothing."""
    return Outcome((), math.inf, problems, failed=True)


class Lookup:
    """Looks up one name, again and again, and remembers what part of it was good.

    Args:
        name: the name.
        hosts: asked before DNS for a host.

    Thread-safety: none; used within one event loop, one look-up at a time.
    """

    def __init__(self, name: NameOf, hosts: HostsFile) -> None:
        self._name = name
        self._hosts = hosts
        self._known: dict[str, Known] = {}  # by host: of a service there are several

    def from_file(self) -> Outcome | None:
        """The outcome without DNS; None: DNS has to be asked.

        Raises:
            LookupFailed: the file cannot be read.
        """
        addresses = self._hosts.find(self._name.name) if self._name.kind == "dns" else ()
        if not addresses:
            return None
        usable, problems = places(addresses)
        if not usable:
            return nothing(*problems)
        self._known.clear()  # if the name leaves the file, what DNS said before is too old
        return self._of_host(HostAnswer(usable, HOSTS_TTL, problems, failed=False))

    async def ask(self, asks: Asks, deadline: float) -> Outcome:
        """The outcome of asking DNS.

        Args:
            asks: puts the questions.
            deadline: on the clock of the event loop, in seconds.
        """
        if self._name.kind == "srv":
            return await self._ask_service(asks, deadline)
        known = self._known.setdefault(self._name.name, {})
        return self._of_host(await ask_host(asks, self._name.name, known, deadline))

    def _of_host(self, answer: HostAnswer) -> Outcome:
        assert self._name.port is not None  # NameOf sees to it
        port = self._name.port
        found, problems = choose({(ip, port): None for ip in answer.addresses})
        return Outcome(found, answer.ttl, (*answer.problems, *problems), answer.failed)

    # ---- services

    async def _ask_service(self, asks: Asks, deadline: float) -> Outcome:
        try:
            reply = await asks.services(self._name.name, deadline)
        except LookupFailed as failure:
            return nothing(str(failure))
        if not reply.records:
            return nothing("it has no SRV records" if reply.exists else NO_SUCH_NAME)
        services, problems = _usable(reply.records)
        if not services:
            return nothing(*problems)
        self._known = {service.target: self._known.get(service.target, {}) for service in services}
        return await self._by_priority(asks, services, reply.ttl, problems, deadline)

    async def _by_priority(
        self, asks: Asks, services: list[Service], ttl: float, problems: tuple[str, ...], deadline: float
    ) -> Outcome:
        """Of the lowest priority that has addresses. Each but the last may take half of the time left."""
        groups = [list(group) for _, group in itertools.groupby(services, lambda service: service.priority)]
        failed = False
        for place, group in enumerate(groups, 1):
            now = asyncio.get_running_loop().time()
            until = deadline if place == len(groups) else now + (deadline - now) / 2
            hosts = await self._ask_targets(asks, group, until)
            problems = (*problems, *_of_targets(hosts))
            ttl = min(ttl, *(host.ttl for host in hosts.values()))
            failed = failed or any(host.failed for host in hosts.values())
            found, too_many = choose(_weights(group, hosts))
            if found:
                return Outcome(found, ttl, (*problems, *too_many), failed)
        return nothing(*problems)

    async def _ask_targets(self, asks: Asks, group: list[Service], deadline: float) -> dict[str, HostAnswer]:
        targets = sorted({service.target for service in group})
        async with asyncio.TaskGroup() as tasks:
            asked = {
                target: tasks.create_task(ask_host(asks, target, self._known[target], deadline))
                for target in targets
            }
        return {target: task.result() for target, task in asked.items()}


def _usable(records: Iterable[Service]) -> tuple[list[Service], tuple[str, ...]]:
    """Records that name a host and a port, by priority, and what there is to say of the others."""
    problems: list[str] = []
    ordered = sorted(records, key=lambda one: (one.priority, one.target, one.port, one.weight))
    services = [one for one in ordered if one.target != _NO_SERVICE]
    if not services:
        problems.append("it says that there is no such service")  # RFC 2782, "Target"
    with_port = [one for one in services if one.port]
    if len(with_port) < len(services):
        problems.append("an SRV record with port 0 is left out")
    if len(with_port) > TARGETS_MAX:
        problems.append(f"more than {TARGETS_MAX} SRV records; only the first in their order are used")
    return with_port[:TARGETS_MAX], tuple(problems)


def _of_targets(hosts: dict[str, HostAnswer]) -> tuple[str, ...]:
    """Targets are text of whoever writes the zone."""
    return tuple(
        f"{shorten(printable(target))}: {problem}"
        for target, host in hosts.items()
        for problem in host.problems
    )


def _weights(group: list[Service], hosts: dict[str, HostAnswer]) -> dict[tuple[IPAddress, int], int | None]:
    """Each place with its weight; the largest when several records lead there."""
    weights: dict[tuple[IPAddress, int], int | None] = {}
    for service in group:
        for ip in hosts[service.target].addresses:
            where = ip, service.port
            weights[where] = max(service.weight, weights.get(where) or 1)
    return weights
