"""From a file, the environment and the command line to one valid `Config`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lbctl.config import document, includes, overrides, warnings, wording
from lbctl.config.document import Document
from lbctl.config.faults import Fault
from lbctl.config.model import Config
from lbctl.config.places import Given, Places
from lbctl.config.problem import Problem
from lbctl.config.spelling import Reading
from lbctl.errors import ConfigInvalid, ConfigMissing


@dataclass(frozen=True)
class Loaded:
    """A configuration and where it came from.

    Attributes:
        config: the valid configuration.
        places: where each value was written.
        tree: the values as written, after overrides; `dump` takes the text of ``${NAME}`` from it.
        warnings: what is odd but allowed.
        base: the directory relative paths start from.
    """

    config: Config
    places: Places
    tree: dict[str, Any]
    warnings: tuple[Problem, ...]
    base: Path


def load(path: Path, environ: Mapping[str, str] | None = None, sets: Sequence[str] = ()) -> Config:
    """The configuration of a file; `read` tells more about it.

    Raises:
        ConfigMissing: the file is not there.
        ConfigInvalid: with every problem at once.
    """
    return read(path, environ, sets).config


def read(path: Path, environ: Mapping[str, str] | None = None, sets: Sequence[str] = ()) -> Loaded:
    """Read a file and its includes, apply the overrides, check everything that needs no other file.

    Args:
        path: the file, shown in messages as it is given here.
        environ: for ``${NAME}`` and ``LBCTL_SET__...``; the process's own by default.
        sets: the texts of ``--set``, in order.

    Raises:
        ConfigMissing: the file is not there.
        ConfigInvalid: with every problem at once.
    """
    try:
        data = document.read_bytes(path)
    except FileNotFoundError:
        raise ConfigMissing(f"{path}: no such file") from None
    except OSError as error:
        problem = Problem(f"cannot read it: {error.strerror}", str(path))
        raise ConfigInvalid([problem]) from None
    return read_bytes(data, str(path), path.parent, environ, sets)


def read_bytes(
    data: bytes,
    name: str,
    base: Path,
    environ: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
) -> Loaded:
    """The same as `read`, for content at hand.

    Args:
        data: the content of the file.
        name: the file as messages show it.
        base: where relative paths and `include` start from.
        environ: as for `read`.
        sets: as for `read`.

    Raises:
        ConfigInvalid: with every problem at once.
    """
    environ = os.environ if environ is None else environ
    main = document.parse(data, name, environ)
    if not isinstance(main.tree, dict):
        raise ConfigInvalid(main.problems or [_not_a_mapping(main)])
    includes.merge(main, base, environ)
    problems = overrides.apply(main.tree, main.places, environ, sets)
    try:
        config = Config.model_validate(main.tree, context=Reading(base))
    except ValidationError as error:
        problems.extend(_located(wording.faults(error), main))
        raise ConfigInvalid(_in_reading_order(main.problems + problems, name)) from None
    if main.problems or problems:
        raise ConfigInvalid(_in_reading_order(main.problems + problems, name))
    found = tuple(_warning(main.places.problem(fault)) for fault in warnings.faults(config))
    return Loaded(config, main.places, main.tree, found, base)


def build(data: Mapping[str, Any], base: Path | None = None) -> Config:
    """A configuration from Python values, under the rules of a file.

    Args:
        data: the keys of the file. A duration may also be a number of seconds, a rate a number per
            second, a share a fraction of one, a serial an integer.
        base: where relative paths start from; the current directory by default.

    Raises:
        ConfigInvalid: with every problem at once, by path.
    """
    try:
        return Config.model_validate(dict(data), context=Reading(base or Path.cwd(), typed=True))
    except ValidationError as error:
        raise ConfigInvalid([Places().problem(fault) for fault in wording.faults(error)]) from None


def _not_a_mapping(main: Document) -> Problem:
    what = "empty" if main.tree is None else "not a mapping"
    return main.places.problem(Fault((), f"{what}; expected keys such as version, tls, apps, clients"))


def _located(faults: Iterable[Fault], main: Document) -> list[Problem]:
    """Faults with their places, without those that follow from a value already complained about."""
    return [
        main.places.problem(fault)
        for fault in faults
        if fault.path not in main.skipped
        or isinstance(main.places.get(fault.path), Given)  # an override came in its place
    ]


def _in_reading_order(problems: list[Problem], main: str) -> list[Problem]:
    """The main file first, then the included ones, each from top to bottom, then overrides."""

    def key(problem: Problem) -> tuple[int, str, int, int]:
        rank = 2 if problem.line is None else 0 if problem.file == main else 1
        return rank, problem.file or "", problem.line or 0, problem.column or 0

    return sorted(problems, key=key)


def _warning(problem: Problem) -> Problem:
    return replace(problem, severity="warning")
