"""The addresses of one host: A and AAAA at once, and what is known when one of them fails."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Protocol

from lbctl.names.places import places
from lbctl.names.questions import Family
from lbctl.names.values import IPAddress, LookupFailed, Reply, Service

FAMILIES: tuple[Family, ...] = ("A", "AAAA")
NO_SUCH_NAME = "there is no such name"

#: The last good addresses of a host.
Known = dict[Family, tuple[IPAddress, ...]]


class Asks(Protocol):
    """`Questions`, or what a test has instead."""

    async def addresses(self, name: str, family: Family, deadline: float) -> Reply[IPAddress]: ...

    async def services(self, name: str, deadline: float) -> Reply[Service]: ...


@dataclass(frozen=True, slots=True)
class HostAnswer:
    """What is known of a host now.

    Attributes:
        addresses: those of both families, in order; none: nothing is known.
        ttl: seconds the answer holds; infinite when DNS said nothing.
        problems: what the operator should hear.
        failed: it should be asked again sooner.
    """

    addresses: tuple[IPAddress, ...]
    ttl: float
    problems: tuple[str, ...]
    failed: bool


async def ask_host(asks: Asks, name: str, known: Known, deadline: float) -> HostAnswer:
    """Asks for both families. `known` is read for a family that fails, and becomes what was found.

    What DNS says counts, also that a family has no addresses; but while nothing at all is left, `known`
    stays.
    """
    async with asyncio.TaskGroup() as group:
        asked = {family: group.create_task(_ask(asks, name, family, deadline)) for family in FAMILIES}
    replies = {family: task.result() for family, task in asked.items()}
    failures = {family: str(reply) for family, reply in replies.items() if isinstance(reply, LookupFailed)}
    said = {family: reply for family, reply in replies.items() if isinstance(reply, Reply)}
    problems = _failed(failures)
    now: Known = {family: known.get(family, ()) for family in failures}
    for family, reply in said.items():
        now[family], left_out = places(reply.records)
        problems = (*problems, *left_out)
    addresses, _ = places(ip for family in FAMILIES for ip in now[family])
    if addresses:
        known.clear()
        known.update(now)
    elif not problems:
        exists = all(reply.exists for reply in said.values())
        problems = ("it has no addresses" if exists else NO_SUCH_NAME,)
    ttl = min((reply.ttl for family, reply in said.items() if now[family]), default=math.inf)
    return HostAnswer(addresses, ttl, problems, failed=bool(failures) or not addresses)


async def _ask(asks: Asks, name: str, family: Family, deadline: float) -> Reply[IPAddress] | LookupFailed:
    try:
        return await asks.addresses(name, family, deadline)
    except LookupFailed as failure:
        return failure


def _failed(failures: dict[Family, str]) -> tuple[str, ...]:
    if len(failures) == len(FAMILIES) and len(set(failures.values())) == 1:
        return (failures["A"],)
    return tuple(f"{family}: {words}" for family, words in failures.items())
