"""The order of a run: every proxy in turns, round by round, and this project against itself."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .load import LoadFailed
from .proxies import BareLoadBalancer, Job, LoadBalancer, Proxy, ProxyFailed
from .report import Itself, Result, significant
from .works import Sample, Scale, Work, measure

_LIMITS_AND_LOG = 1.05  # at most, of a connection without
_TWO_WORKERS = 1.10  # at most, of one worker


@dataclass(frozen=True)
class Case:
    """A column: a proxy with a number of workers."""

    name: str
    proxy: Proxy
    workers: int = 1


@dataclass(frozen=True)
class Comparison:
    """Two cases of this project, and the works that they are compared in."""

    title: str
    ours: Case
    theirs: Case
    at_most: float
    keys: tuple[str, ...]
    cpus: int = 1

    def among(self, works: Sequence[Work]) -> list[Work]:
        """Its works that are in `works`."""
        return [work for work in works if work.key in self.keys]


ITSELF = (
    Comparison(
        "limits and one record per connection, against none",
        Case("on", LoadBalancer()),
        Case("off", BareLoadBalancer()),
        _LIMITS_AND_LOG,
        ("tls-new", "tcp-new"),
    ),
    Comparison(
        "two workers, against one",
        Case("two", LoadBalancer(), workers=2),
        Case("one", LoadBalancer()),
        _TWO_WORKERS,
        ("tls-new", "tls-echo", "tls-down", "tcp-new", "tcp-echo"),
        cpus=2,
    ),
)


def turns(cases: Sequence[Case], rounds: int) -> list[tuple[int, Case]]:
    """A B C, B C A, C A B: all of a round directly one after the other, and each in turn the first."""
    order = []
    for number in range(rounds):
        first = number % len(cases)
        order += [(number + 1, case) for case in (*cases[first:], *cases[:first])]
    return order


class Bench:
    """What all measurements of a run share; it tells its progress on stderr.

    Args:
        measurements: how many there will be, for the progress.
    """

    def __init__(self, folder: Path, scale: Scale, rounds: int, measurements: int) -> None:
        self._folder = folder
        self._scale = scale
        self._rounds = rounds
        self._measurements = measurements
        self._done = 0

    def compare(self, work: Work, cases: Sequence[Case], job: Job, cpus: Sequence[int]) -> Result:
        """All rounds of one work.

        Raises:
            LoadFailed, ProxyFailed: with the work, the round and the proxy in a note.
        """
        samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
        for number, case in turns(cases, self._rounds):
            samples[case.name].append(self._measure(work, case, number, job, cpus))
        return Result(work, samples)

    def itself(self, comparison: Comparison, works: Sequence[Work], job: Job, cpus: Sequence[int]) -> Itself:
        """This project in two ways, in some of the works."""
        cases = (comparison.ours, comparison.theirs)
        results = [self.compare(work, cases, job, cpus) for work in comparison.among(works)]
        return Itself(comparison.title, cases[0].name, cases[1].name, comparison.at_most, results)

    def _measure(self, work: Work, case: Case, number: int, job: Job, cpus: Sequence[int]) -> Sample:
        job = dataclasses.replace(job, workers=case.workers)
        try:
            sample = measure(work, case.proxy, job, self._scale, self._folder, cpus)
        except (LoadFailed, ProxyFailed) as failure:
            failure.add_note(f"(in {work.key}, round {number}, {case.name})")
            raise
        self._done += 1
        where = f"[{self._done}/{self._measurements}] {work.key} {number} {case.name}"
        print(f"{where}: {significant(sample.value)} {work.unit}", file=sys.stderr, flush=True)
        return sample


def able(work: Work, cases: Sequence[Case]) -> list[Case]:
    """Those that can do it."""
    return [case for case in cases if case.proxy.lack(work.key) is None]
