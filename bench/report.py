"""Numbers of a run, put together: medians, spread, ratios; as Markdown and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import network

if TYPE_CHECKING:  # numbers can be put together without the load, which has to be compiled
    from .works import Sample, Work

SCHEMA = 3
_OLDER = (2,)  # says nothing of choices in favour of peers, nor of transfers beside what was timed
BEST = "best peer"
AS_PACKAGED = "as packaged"  # what a run says of its peers
IN_THEIR_FAVOUR = "with choices in their favour"
PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}  # and the share of echoes that were as fast
_NOTHING = "–"


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

    All of a round ran directly one after the other, so a machine that slows down for a while
    moves both of a pair and leaves their ratio.

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
    """All rounds of one work, by name of proxy; one that cannot do the work is not in it."""

    work: Work
    samples: Mapping[str, Sequence[Sample]]

    def spread(self, proxy: str) -> Spread:
        return Spread.of(self._values(proxy))

    def busy(self, proxy: str) -> float:
        """The median share of its CPUs that the proxy used."""
        return statistics.median(sample.busy for sample in self.samples[proxy])

    def ratio(self, ours: str, theirs: str) -> Spread:
        return ratios(self._values(ours), self._values(theirs))

    def best(self, peers: Sequence[str]) -> str | None:
        """The peer with the least median; None when no peer can do the work."""
        able = [peer for peer in peers if peer in self.samples]
        return min(able, key=lambda peer: self.spread(peer).median, default=None)

    def rate(self, proxy: str) -> Spread | None:
        """Units per second; None where units are not done as fast as the proxy can."""
        if self.work.reads != "cpu":
            return None
        return Spread.of([sample.units / sample.seconds for sample in self.samples[proxy]])

    def beside(self, proxy: str) -> Spread | None:
        """Gigabytes a second that were transferred beside what was timed; None where there were none."""
        rates = [sample.beside / 1e9 / sample.seconds for sample in self.samples[proxy]]
        return Spread.of(rates) if any(rates) else None

    def latency(self, proxy: str) -> Mapping[str, Spread]:
        """Microseconds by percentile; empty when it was not measured."""
        measured = [sample.latency for sample in self.samples[proxy] if sample.latency is not None]
        if not measured:
            return {}
        return {name: Spread.of([latency[name] for latency in measured]) for name in PERCENTILES}

    def _values(self, proxy: str) -> list[float]:
        return [sample.value for sample in self.samples[proxy]]


@dataclass(frozen=True)
class About:
    """What is to be known of a proxy besides its numbers.

    Attributes:
        tls: the library that it runs on.
        agreed: what TLS agreed on with a client.
        command: what starts it.
        lacks: works it cannot do, and why.
        differs: parts of the job that it does in another way.
    """

    name: str
    product: str
    tls: str
    agreed: str
    command: str
    ours: bool = False
    lacks: Mapping[str, str] = field(default_factory=dict)
    differs: Sequence[str] = ()


@dataclass(frozen=True)
class Pass:
    """All works, with that many workers in each proxy."""

    workers: int
    results: Sequence[Result]


@dataclass(frozen=True)
class Itself:
    """This project against itself: `ours` and `theirs` are the two names in the samples.

    Attributes:
        at_most: what the ratio is meant to be.
    """

    title: str
    ours: str
    theirs: str
    at_most: float
    results: Sequence[Result]


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        run: date, command, rounds.
        machine: what the numbers depend on.
        proxies: all that were measured; the first is held against the others.
        skipped: proxies that are not installed, and how to get them.
    """

    run: Mapping[str, str]
    machine: Mapping[str, str]
    proxies: Sequence[About]
    passes: Sequence[Pass]
    itself: Sequence[Itself] = ()
    skipped: Sequence[str] = ()

    @property
    def ours(self) -> str:
        return self.proxies[0].name

    @property
    def peers(self) -> list[str]:
        """Other projects."""
        return [about.name for about in self.proxies[1:] if not about.ours]

    def on_one_library(self) -> list[tuple[str, str, list[str]]]:
        """Each of ours, its TLS library, and the peers that run on the very same."""
        found = []
        for ours in self.proxies:
            peers = [about.name for about in self.proxies if not about.ours and about.tls == ours.tls]
            if ours.ours and peers and ours.name != self.ours:
                found.append((ours.name, ours.tls, peers))
        return found


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    info = Path("/proc/cpuinfo").read_text()
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": str(os.cpu_count()),
        "memory": f"{memory / (1 << 30):.1f} GiB",
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", "Linux"),
        "kernel": platform.release(),
        "congestion control": network.congestion_control(),
        "python": sys.version.split()[0],
    }


# ---- for people ----------------------------------------------------------------------------------


def markdown(report: Report) -> str:
    """The report for people: each table has a row for each work."""
    parts = ["\n".join(_bullets({**report.run, **report.machine}))]
    parts.append("\n".join(_about(about) for about in report.proxies))
    parts += [f"Not here: {skipped}" for skipped in report.skipped]
    for one in report.passes:
        parts += _pass(report, one)
    if report.itself:
        parts += ["## This project against itself", _itself_table(report.itself)]
    return "\n\n".join(parts)


def _bullets(values: Mapping[str, str]) -> list[str]:
    return [f"- {key}: {value}" for key, value in values.items()]


def _about(about: About) -> str:
    lines = [f"- {about.name}: {about.product} with {about.tls}; {about.agreed}; `{about.command}`"]
    lines += [f"  - {sentence}" for sentence in about.differs]
    reasons = dict.fromkeys(about.lacks.values())
    for reason in reasons:
        keys = ", ".join(key for key, why in about.lacks.items() if why == reason)
        lines.append(f"  - not measured in {keys}: {reason}")
    return "\n".join(lines)


def _pass(report: Report, one: Pass) -> list[str]:
    names = [about.name for about in report.proxies]
    parts = [f"## {'One worker' if one.workers == 1 else f'{one.workers} workers'}", "### Cost of a unit"]
    parts.append(_table(one, names, lambda result, name: _spread(result.spread(name)), unit=True))
    parts.append("CPU (or memory, or latency) for one unit of work: median (least–greatest of the rounds).")
    if report.peers:
        parts += _section(f"{report.ours} / peer", _ratio_table(one, report.ours, report.peers))
    for ours, tls, peers in report.on_one_library():
        parts += _section(f"On the same library, {tls}: {ours} / peer", _ratio_table(one, ours, peers))
    parts += _section("Rate", _table(one, names, _rate))
    parts += _section("Latency, µs", _latency_table(one, names))
    parts += _section("Transferred beside what was timed", _table(one, names, _beside))
    parts += _section("How busy", _table(one, names, lambda result, name: f"{result.busy(name):.0%}"))
    return parts


def _section(title: str, table: str) -> list[str]:
    return [f"### {title}", table] if table else []


def _table(one: Pass, names: Sequence[str], cell: Callable[[Result, str], str], *, unit: bool = False) -> str:
    rows = [["work", *(["unit"] if unit else []), *names]]
    for result in one.results:
        cells = [cell(result, name) if name in result.samples else _NOTHING for name in names]
        if any(text != _NOTHING for text in cells):
            rows.append([result.work.title, *([result.work.unit] if unit else []), *cells])
    return as_table(rows, left=2 if unit else 1)


def _ratio_table(one: Pass, ours: str, peers: Sequence[str]) -> str:
    rows = [["work", *peers, BEST]]
    for result in one.results:
        best = result.best(peers)
        if best is None or ours not in result.samples:
            continue
        cells = [_ratio(result, ours, peer) if peer in result.samples else _NOTHING for peer in peers]
        rows.append([result.work.title, *cells, f"{best}: {_ratio(result, ours, best)}"])
    return as_table(rows)


def _latency_table(one: Pass, names: Sequence[str]) -> str:
    rows = [["work", "", *names]]
    for result in one.results:
        latencies = {name: result.latency(name) for name in names if name in result.samples}
        if not any(latencies.values()):
            continue
        for percentile in PERCENTILES:
            cells = [_percentile(latencies.get(name), percentile) for name in names]
            rows.append([result.work.title, percentile, *cells])
    return as_table(rows, left=2)


def _percentile(latency: Mapping[str, Spread] | None, percentile: str) -> str:
    return _spread(latency[percentile]) if latency else _NOTHING


def _itself_table(comparisons: Sequence[Itself]) -> str:
    rows = [["what", "work", "unit", "one way", "the other", "ratio", "meant to be"]]
    for one in comparisons:
        for result in one.results:
            costs = [f"{name}: {_spread(result.spread(name))}" for name in (one.ours, one.theirs)]
            ratio = _ratio(result, one.ours, one.theirs)
            rows.append([one.title, result.work.title, result.work.unit, *costs, ratio, f"≤ {one.at_most}"])
    return as_table(rows, left=3)


def _rate(result: Result, name: str) -> str:
    rate = result.rate(name)
    if rate is None:
        return _NOTHING
    if result.work.unit.endswith("/GB"):  # its units are bytes
        return f"{rate.median / 1e9:.2f} GB/s"
    return f"{significant(rate.median)} /s"


def _beside(result: Result, name: str) -> str:
    beside = result.beside(name)
    return _NOTHING if beside is None else f"{beside.median:.2f} GB/s"


def _ratio(result: Result, ours: str, theirs: str) -> str:
    return _spread(result.ratio(ours, theirs), "{:.2f}".format)


def _spread(spread: Spread, text: Callable[[float], str] | None = None) -> str:
    text = text or significant
    return f"{text(spread.median)} ({text(spread.least)}–{text(spread.greatest)})"


def significant(value: float) -> str:
    """Three digits that mean something: 1570, 31.2, 0.62."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def as_table(rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of a head and at least one row; nothing without."""
    if len(rows) < 2:
        return ""
    ruler = ["---"] * left + ["---:"] * (len(rows[0]) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ruler, *rows[1:]])


# ---- for programs --------------------------------------------------------------------------------


class NotAReport(Exception):
    """A file is not what `as_json` makes; the text says which."""


def read(file: Path) -> dict[str, Any]:
    """What `python -m bench --json` has written.

    Raises:
        NotAReport: something else has written it.
        OSError: it cannot be read.
    """
    try:
        document = json.loads(file.read_text())
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("schema") not in (SCHEMA, *_OLDER):
        raise NotAReport(f"{file} is not what `bench --json` writes")
    return document


def as_json(report: Report) -> dict[str, Any]:
    """The same for programs, with every round in it."""
    return {
        "schema": SCHEMA,
        "run": dict(report.run),
        "machine": dict(report.machine),
        "proxies": [
            {field.name: _plain(getattr(about, field.name)) for field in dataclasses.fields(about)}
            for about in report.proxies
        ],
        "skipped": list(report.skipped),
        "passes": [
            {"workers": one.workers, "works": [_work(report, result) for result in one.results]}
            for one in report.passes
        ],
        "itself": [_itself(one) for one in report.itself],
    }


def _plain(value: Any) -> Any:
    """Mappings and tuples as JSON has them; asdict cannot copy a read-only mapping."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


def _work(report: Report, result: Result) -> dict[str, Any]:
    compared = [name for name in report.peers if name in result.samples and report.ours in result.samples]
    return {
        **_rounds(result),
        "ratios": {name: dataclasses.asdict(result.ratio(report.ours, name)) for name in compared},
        "best": result.best(report.peers),
    }


def _rounds(result: Result) -> dict[str, Any]:
    return {
        "key": result.work.key,
        "title": result.work.title,
        "unit": result.work.unit,
        "reads": result.work.reads,
        "proxies": {
            name: {
                **dataclasses.asdict(result.spread(name)),
                "busy": result.busy(name),
                "latency": {key: dataclasses.asdict(value) for key, value in result.latency(name).items()},
                "rounds": [_sample(sample) for sample in samples],
            }
            for name, samples in result.samples.items()
        },
    }


def _sample(sample: Sample) -> dict[str, Any]:
    latency = None if sample.latency is None else dict(sample.latency)
    return {
        "value": sample.value,
        "units": sample.units,
        "seconds": sample.seconds,
        "busy": sample.busy,
        "latency": latency,
        "beside": sample.beside,
    }


def _itself(one: Itself) -> dict[str, Any]:
    return {
        "title": one.title,
        "at_most": one.at_most,
        "ours": one.ours,
        "theirs": one.theirs,
        "works": [
            {**_rounds(result), "ratio": dataclasses.asdict(result.ratio(one.ours, one.theirs))}
            for result in one.results
        ],
    }
