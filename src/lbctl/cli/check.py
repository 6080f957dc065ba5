"""`lbctl check`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click

from lbctl import config
from lbctl.cli.output import json_option, write_json
from lbctl.config import Loaded, Problem
from lbctl.config.search import PLACES, VARIABLE
from lbctl.config.values import shorten
from lbctl.errors import ConfigInvalid, ConfigMissing, ExitCode


@dataclass
class Findings:
    """What one check found out.

    Attributes:
        file: the file that was checked, or None when there is none.
        loaded: the configuration, when it could be read.
        problems: errors and warnings.
    """

    file: Path | None = None
    loaded: Loaded | None = None
    problems: list[Problem] = field(default_factory=list)

    def count(self, severity: str) -> int:
        """How many errors, or warnings."""
        return sum(problem.severity == severity for problem in self.problems)

    def passed(self, strict: bool) -> bool:
        """Whether all is well, warnings included when `strict`."""
        return not self.count("error") and not (strict and self.problems)


@click.command()
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="The configuration file.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override one value (repeatable).")
@click.option("--print", "show", is_flag=True, help="Print the configuration in force, defaults filled in.")
@click.option("--origin", is_flag=True, help="Like --print, and say where each value comes from.")
@click.option("--strict", is_flag=True, help="Warnings count as errors.")
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    file: Path | None,
    sets: tuple[str, ...],
    show: bool,
    origin: bool,
    strict: bool,
    as_json: bool,
) -> None:
    """Validate the configuration: every error in one run, each with its place.

    Certificates and keys it names are looked at too. Nothing is changed and nothing listens. Findings
    go to stderr, --print and --json to stdout. Without --config: $LBCTL_CONFIG, ./lb.yaml,
    /etc/lbctl/lb.yaml.
    """
    if as_json and (show or origin):
        raise click.UsageError("--json and --print exclude each other")
    findings = _findings(file, sets)
    if as_json:
        _write_json(findings, strict)
    else:
        _write_text(findings, show or origin, origin)
    ctx.exit(ExitCode.OK if findings.passed(strict) else ExitCode.FAILED)


def _findings(explicit: Path | None, sets: tuple[str, ...]) -> Findings:
    findings = Findings()
    try:
        findings.file = config.find_config(explicit, os.environ)
        if findings.file is None:
            findings.problems.append(Problem(_nothing_found()))
            return findings
        findings.loaded = config.read(findings.file, os.environ, sets)
    except ConfigMissing as error:
        findings.problems.append(Problem(str(error)))
    except ConfigInvalid as error:
        findings.problems.extend((*error.problems, *error.warnings))
    else:
        findings.problems.extend((*findings.loaded.warnings, *config.check_files(findings.loaded)))
        findings.problems.extend(_data_plane(findings.loaded))
    return findings


def _data_plane(loaded: Loaded) -> Iterator[Problem]:
    try:
        from lbctl.engine_port import faults
    except (ImportError, OSError, RuntimeError):
        return  # a configuration may be checked where the data plane does not run
    yield from map(loaded.places.problem, faults(loaded.config))


def _nothing_found() -> str:
    places = ", ".join(str(path) if path.is_absolute() else f"./{path}" for path in PLACES)
    return (
        f"no configuration: looked for --config, ${VARIABLE}, {places}; write one with: lbctl init"
    )


def _write_json(findings: Findings, strict: bool) -> None:
    write_json(
        {
            "file": str(findings.file) if findings.file is not None else None,
            "ok": findings.passed(strict),
            "errors": findings.count("error"),
            "warnings": findings.count("warning"),
            "problems": [problem.as_json() for problem in findings.problems],
        }
    )


def _write_text(findings: Findings, show: bool, origin: bool) -> None:
    if findings.problems:
        click.echo(config.render(findings.problems), err=True)
    if findings.loaded is None:
        return
    if show:
        click.echo(config.dump(findings.loaded, origins=origin), nl=False)
    elif not findings.count("error"):
        model = findings.loaded.config
        apps, clients = _count(len(model.apps), "app"), _count(len(model.clients), "client")
        click.echo(f"{shorten(str(findings.file), 200)}: ok ({apps}, {clients})")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
