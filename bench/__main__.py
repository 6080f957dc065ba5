"""`python -m bench`: this project and its peers, the same job, one run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime as dt
import json
import os
import resource
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from . import certificates, network, pictures, preflight, readme, report
from .compare import ITSELF, Bench, Case, Comparison, able
from .ending import run
from .place import installed, place, require_programs, usable_cpus
from .program import FAILURES, positive, words
from .proxies import PROXIES, Job, Proxy, ProxyFailed, Version
from .works import QUICK, WORKS, Scale, Work

_FAILURES = (*FAILURES, preflight.JobNotDone, pictures.NoPictures, readme.NoPlace)
_T = TypeVar("_T")
_DESCRIPTORS_KEPT = 500  # for all that is no idle connection
_ROUNDS = 5
_QUICK_ROUNDS = 2
_QUICK_WORKS = ("tls-new", "tls-down", "tls-idle")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison and prints it; 0: measured, 1: something failed."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    outcome = []
    try:
        _check_places(options)
        outcome = ["Nothing is reported."]
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            done = _Run(options, f"python -m bench {shlex.join(given)}".strip(), Path(folder)).measured()
        print(report.markdown(done), flush=True)
        outcome = ["What is printed was measured; not everything else could be written."]
        _write(report.as_json(done), options)
    except _FAILURES as failure:
        print("\n".join([f"bench: {words(failure)}", *outcome]), file=sys.stderr)
        return 1
    return 0


def _check_places(options: argparse.Namespace) -> None:
    """That all can be written which is asked for, so that it is not found out after the run.

    Raises:
        NoPictures, NoPlace, OSError: it cannot; what to do about it, on one line.
    """
    if options.svg:
        pictures.require()
        _check_folder(next(path for path in (options.svg, *options.svg.absolute().parents) if path.exists()))
    if options.readme:
        readme.require(options.readme)
        _check_file(options.readme)
    if options.json and options.json.exists():
        _check_file(options.json)
    elif options.json:
        _check_folder(options.json.parent)


def _check_file(file: Path) -> None:
    if file.is_dir() or not os.access(file, os.W_OK):
        raise OSError(f"{file} is no file that can be written: name another, or change who may write it")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f"{folder} is no folder that can be written to: make it, or name another")


def _write(document: Mapping[str, Any], options: argparse.Namespace) -> None:
    """Everything besides what is printed."""
    if options.json:
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    if options.svg:
        pictures.draw(document, options.svg)
    if options.readme:
        readme.write(document, options.readme)


class _Run:
    """A run as it was asked for."""

    def __init__(self, options: argparse.Namespace, command: str, folder: Path) -> None:
        self._usable = usable_cpus()
        require_programs()
        self._as_packaged: bool = options.as_packaged
        self._own_network = options.network == "own"
        self._rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
        self._versions, self._skipped = installed(_chosen(PROXIES, "name", options.proxy))
        if not self._versions:
            raise ProxyFailed("no proxy to measure")
        self._cases = [Case(proxy.name, proxy) for proxy in self._versions]
        self._works = _chosen(WORKS, "key", options.work or (_QUICK_WORKS if options.quick else ()))
        if not any(able(work, self._cases) for work in self._works):
            raise ProxyFailed("none of these proxies can do any of these works")
        self._workers = [1, len(self._usable)] if options.workers == "all" else [1]
        wanted = () if options.quick or options.proxy else ITSELF
        self._itself = [comparison for comparison in wanted if comparison.among(self._works)]
        self._certificates = certificates.make(folder)
        self._scale = QUICK if options.quick else Scale()
        self._measurements = self._rounds * self._in_a_round()
        self._bench = Bench(folder, self._scale, self._rounds, self._measurements)
        self._folder = folder
        self._run = {
            "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "command": command,
            "rounds": str(self._rounds),
            "network": network.MACHINES,
            "peers": report.AS_PACKAGED if self._as_packaged else report.IN_THEIR_FAVOUR,
        }

    def measured(self) -> report.Report:
        """Everything, measured.

        Raises:
            JobNotDone: a proxy does less than the others.
            LoadFailed, ProxyFailed: something went wrong while it was measured.
        """
        if self._own_network:
            self._run["network"] = network.enter_if_allowed()
        _raise_fd_limit(self._works, self._scale)
        minutes = max(1, round(self._measurements * self._scale.lasts / 60))
        expected = f"{self._measurements} measurements, roughly {minutes} min on two idle CPUs"
        print(f"bench: {expected}", file=sys.stderr, flush=True)
        with self._place(1) as (job, cpus):
            abouts = [self._prove(proxy, version, job, cpus) for proxy, version in self._versions.items()]
        passes = [self._pass(workers) for workers in self._workers]
        itself = [self._against_itself(comparison) for comparison in self._itself]
        return report.Report(self._run, report.machine(), abouts, passes, itself, self._skipped)

    def _in_a_round(self) -> int:
        """Measurements of all passes."""
        count = len(self._workers) * sum(len(able(work, self._cases)) for work in self._works)
        return count + 2 * sum(len(comparison.among(self._works)) for comparison in self._itself)

    def _prove(self, proxy: Proxy, version: Version, job: Job, cpus: list[int]) -> report.About:
        print(f"{proxy.name}: does it do the whole job?", file=sys.stderr, flush=True)
        agreed = preflight.prove(proxy, job, self._folder, cpus)
        command = proxy.command(Path(proxy.config_name), job)
        spelled = " ".join([Path(command[0]).name, *command[1:]])
        lacks = {work.key: why for work in WORKS if (why := proxy.lack(work.key)) is not None}
        return report.About(
            proxy.name, version.product, version.tls, agreed, spelled, proxy.ours, lacks, proxy.differs
        )

    def _pass(self, workers: int) -> report.Pass:
        results = []
        with self._place(workers) as (job, cpus):
            for work in self._works:
                cases = [dataclasses.replace(case, workers=workers) for case in able(work, self._cases)]
                if cases:
                    results.append(self._bench.compare(work, cases, job, cpus))
        return report.Pass(workers, results)

    def _against_itself(self, comparison: Comparison) -> report.Itself:
        with self._place(comparison.cpus) as (job, cpus):
            return self._bench.itself(comparison, self._works, job, cpus)

    def _place(self, count: int) -> contextlib.AbstractContextManager[tuple[Job, list[int]]]:
        return place(self._certificates, self._usable, count, as_packaged=self._as_packaged)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="less of everything, under two minutes")
    parser.add_argument("--rounds", type=positive, metavar="N", help="measurements of each work and proxy")
    parser.add_argument(
        "--workers", choices=["one", "all"], default="one", help="all: once more with a worker for each CPU"
    )
    parser.add_argument(
        "--network", choices=["own", "machine"], default="own",
        help="own: a namespace with an untouched loopback and Linux's default congestion control",
    )  # fmt: skip
    parser.add_argument(
        "--as-packaged", action="store_true", help="peers without the choices in their favour"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every round to FILE")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="also draw pictures into DIR")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="also put the table into a README")
    parser.add_argument(
        "--work", action="append", choices=[work.key for work in WORKS], help="only this work (repeatable)"
    )
    parser.add_argument(
        "--proxy", action="append", choices=[proxy.name for proxy in PROXIES], help="only this (repeatable)"
    )
    return parser


def _chosen(all_of_them: Sequence[_T], attribute: str, names: Sequence[str] | None) -> list[_T]:
    return [one for one in all_of_them if not names or getattr(one, attribute) in names]


def _raise_fd_limit(works: Sequence[Work], scale: Scale) -> None:
    """Idle connections need a descriptor each, here and in upstreams, and two in proxies, which inherit it.

    Raises:
        OSError: this user may not have so many.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * (scale.idle + scale.idle_before) + _DESCRIPTORS_KEPT
    if any(work.memory for work in works) and hard < needed:
        raise OSError(
            f"idle connections need {needed} descriptors, and this user may have {hard}: raise the limit "
            "(ulimit -n), or choose other works (--work)"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    run(main)
