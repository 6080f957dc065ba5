"""`python -m bench`: this project and its peers, the same job, one run."""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import certificates, preflight, report
from .load import LoadFailed
from .proxies import PROXIES, Job, Proxy, ProxyFailed, ProxyMissing
from .upstream import Upstreams
from .works import QUICK, WORKS, Sample, Scale, Work, measure

_ROUNDS = 5
_QUICK_ROUNDS = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison and prints it; 0: measured, 1: something failed and nothing is reported."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    try:
        header, results = _run(options, rounds)
    except (ProxyFailed, LoadFailed, preflight.JobNotDone, OSError) as failure:
        words = [str(failure), *getattr(failure, "__notes__", []), "Nothing is reported."]
        print("bench: " + "\n".join(words), file=sys.stderr)
        return 1
    names = list(results[0].samples)
    header = {"command": " ".join(["python -m bench", *given]), "rounds": str(rounds), **header}
    print(report.markdown(results, names, header))
    if options.json:
        options.json.write_text(json.dumps(report.as_json(results, names, header), indent=2) + "\n")
    return 0


def _run(options: argparse.Namespace, rounds: int) -> tuple[dict[str, str], list[report.Result]]:
    """What was run, and where, for the head of the report; and all results."""
    proxy_cpu, load_cpu = _two_cpus()
    versions = _versions([proxy for proxy in PROXIES if not options.proxy or proxy.name in options.proxy])
    works = [work for work in WORKS if not options.work or work.key in options.work]
    header = {"date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), **report.machine()}
    header["pinned"] = f"proxy on CPU {proxy_cpu}, load and upstreams on CPU {load_cpu}"
    os.sched_setaffinity(0, {load_cpu})
    _raise_fd_limit()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Upstreams() as upstreams:
        job = Job(certificates.make(Path(name)), upstreams.ports)
        bench = _Bench(job, QUICK if options.quick else Scale(), Path(name), [proxy_cpu])
        for proxy, version in versions.items():
            header[proxy.name] = f"{version}; {bench.prove(proxy)}"
        return header, [bench.compare(work, list(versions), rounds) for work in works]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, under two minutes")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="measurements of each work and proxy")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round to FILE")
    parser.add_argument(
        "--work", action="append", choices=[work.key for work in WORKS], help="only this work (repeatable)"
    )
    parser.add_argument(
        "--proxy", action="append", choices=[proxy.name for proxy in PROXIES], help="only this (repeatable)"
    )
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("a whole number of at least 1")
    return int(text)


def _two_cpus() -> tuple[int, int]:
    """One CPU for the proxy, another for everything else."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2 or not shutil.which("taskset"):
        raise OSError("needs two usable CPUs and taskset (Debian: apt-get install util-linux)")
    return usable[0], usable[1]


def _raise_fd_limit() -> None:
    """Idle connections need a descriptor each, here and, by inheritance, in proxies and upstreams."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _versions(proxies: Sequence[Proxy]) -> dict[Proxy, str]:
    """The proxies that are there; those that are not are named, with how to get them."""
    found: dict[Proxy, str] = {}
    for proxy in proxies:
        try:
            found[proxy] = proxy.version()
        except ProxyMissing as missing:
            print(f"bench: skipped: {missing}", file=sys.stderr)
    if not found:
        raise ProxyFailed("no proxy to measure")
    return found


class _Bench:
    """What all measurements of a run share; it tells its progress on stderr."""

    def __init__(self, job: Job, scale: Scale, folder: Path, cpus: Sequence[int]) -> None:
        self._job = job
        self._scale = scale
        self._folder = folder
        self._cpus = cpus

    def prove(self, proxy: Proxy) -> str:
        print(f"{proxy.name}: does it do the whole job?", file=sys.stderr)
        return preflight.prove(proxy, self._job, self._folder, self._cpus)

    def compare(self, work: Work, proxies: Sequence[Proxy], rounds: int) -> report.Result:
        """A B, B A, A B: in each round directly one after the other, and in turns the first."""
        samples: dict[str, list[Sample]] = {proxy.name: [] for proxy in proxies}
        for number in range(1, rounds + 1):
            for proxy in proxies if number % 2 else reversed(proxies):
                sample = self._measure(work, proxy, number)
                samples[proxy.name].append(sample)
        return report.Result(work, samples)

    def _measure(self, work: Work, proxy: Proxy, number: int) -> Sample:
        try:
            sample = measure(work, proxy, self._job, self._scale, self._folder, self._cpus)
        except (LoadFailed, ProxyFailed) as failure:
            failure.add_note(f"(in {work.key}, round {number}, {proxy.name})")
            raise
        cost = report.significant(sample.value)
        print(f"{work.key} {number} {proxy.name}: {cost} {work.unit}", file=sys.stderr)
        return sample


if __name__ == "__main__":
    sys.exit(main())
