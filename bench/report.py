"""Numbers of a run, put together: medians, spread, ratios; as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import os
import platform
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .works import Sample, Work


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some rounds."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError when there are none."""
        if not values:
            raise ValueError("no rounds")
        return cls(statistics.median(values), min(values), max(values))


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs: the ratio of the medians, and the extremes of the rounds taken pair by pair.

    The two of a pair ran directly one after the other, so a machine that slows down for a while
    moves both and leaves their ratio.

    Raises:
        ValueError: none, not the same number of rounds, or a round that cost nothing.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} rounds against {len(theirs)}")
    if not all(value > 0 for value in theirs):
        raise ValueError(f"a round without any cost: {list(theirs)}")
    pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
    return Spread(statistics.median(ours) / statistics.median(theirs), min(pairs), max(pairs))


@dataclass(frozen=True)
class Result:
    """All rounds of one work, by name of proxy."""

    work: Work
    samples: Mapping[str, Sequence[Sample]]

    def spread(self, proxy: str) -> Spread:
        return Spread.of(self._values(proxy))

    def busy(self, proxy: str) -> float:
        """The median share of its CPU that the proxy used."""
        return statistics.median(sample.busy for sample in self.samples[proxy])

    def ratio(self, ours: str, theirs: str) -> Spread:
        return ratios(self._values(ours), self._values(theirs))

    def _values(self, proxy: str) -> list[float]:
        return [sample.value for sample in self.samples[proxy]]


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
    }


def markdown(results: Sequence[Result], proxies: Sequence[str], header: Mapping[str, str]) -> str:
    """The report for people. The first proxy is compared with each of the others."""
    ours, peers = proxies[0], proxies[1:]
    columns = ["work", "unit", *proxies, *(f"{ours} / {peer}" for peer in peers), "proxy busy"]
    lines = [f"- {key}: {value}" for key, value in header.items()]
    lines += ["", _row(columns), _row(["---"] * 2 + ["---:"] * (len(columns) - 2))]
    lines += [_row(_cells(result, proxies)) for result in results]
    lines += ["", "CPU (or memory) of the proxy per unit of work: median (least - greatest of the rounds)."]
    return "\n".join(lines)


def _cells(result: Result, proxies: Sequence[str]) -> list[str]:
    ours, peers = proxies[0], proxies[1:]
    cells = [result.work.title, result.work.unit]
    cells += [_spread_text(result.spread(proxy), significant) for proxy in proxies]
    cells += [_spread_text(result.ratio(ours, peer), "{:.2f}".format) for peer in peers]
    cells.append(" / ".join(f"{result.busy(proxy):.0%}" for proxy in proxies))
    return cells


def _spread_text(spread: Spread, text: Any) -> str:
    return f"{text(spread.median)} ({text(spread.least)} - {text(spread.greatest)})"


def significant(value: float) -> str:
    """Three digits that mean something: 1570, 31.2, 0.62."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def as_json(results: Sequence[Result], proxies: Sequence[str], header: Mapping[str, str]) -> dict[str, Any]:
    """The same for programs, with every round in it."""
    return {
        "schema": 1,
        "run": dict(header),
        "works": [
            {
                "key": result.work.key,
                "title": result.work.title,
                "unit": result.work.unit,
                "proxies": {
                    proxy: {
                        **dataclasses.asdict(result.spread(proxy)),
                        "rounds": [dataclasses.asdict(sample) for sample in result.samples[proxy]],
                    }
                    for proxy in proxies
                },
                "ratios": {peer: dataclasses.asdict(result.ratio(proxies[0], peer)) for peer in proxies[1:]},
            }
            for result in results
        ],
    }
