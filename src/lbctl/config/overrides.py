"""Single values from the environment and the command line, on top of the file.

Precedence, lowest first: defaults, file, environment, command line; within one of them the later wins.

On the command line: ``--set PATH=VALUE``, the path as messages show it, parts joined by dots. A part
that holds a dot is put in double quotes. List elements go by index, from 0; the index after the last
one adds an element::

    --set node.drain_timeout=10s
    --set apps.orders-db.upstreams.0.weight=50
    --set 'apps."orders.db".listen=0.0.0.0:7306'

In the environment: ``LBCTL_SET__`` and the same path, parts joined by two underscores, in the case the
key has. A character that a variable's name cannot hold is written ``_xHH_``: its UTF-8 bytes in
hexadecimal, any number of them (so ``_x5F5F_`` is two underscores inside one part)::

    LBCTL_SET__node__drain_timeout=10s
    LBCTL_SET__apps__orders_x2D_db__upstreams__0__weight=50

The value is text, taken as it is: no YAML, no ``${NAME}``. The key it lands in says what it means, so
it is written as in the file but without quotes: ``10s``, ``50/s``, ``true``, ``4``. Relative paths start
from the current directory. `include` cannot be overridden.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lbctl.config import shape
from lbctl.config.faults import Fault, Path, did_you_mean, dotted
from lbctl.config.places import Given, Places
from lbctl.config.problem import Problem
from lbctl.config.scalars import CONTROL
from lbctl.config.spelling import Override
from lbctl.config.values import shorten

ENVIRONMENT_PREFIX = "LBCTL_SET__"

_PART = re.compile(r'"([^"]*)"|([^."=]+)')
_HEX = re.compile(r"_x((?:[0-9A-Fa-f]{2})+)_")


@dataclass(frozen=True)
class Setting:
    """One override: where it came from, which path, which text."""

    given: Given
    path: tuple[str, ...]
    value: str


def apply(tree: Any, places: Places, environ: Mapping[str, str], sets: Sequence[str]) -> list[Problem]:
    """Put every override into a tree, in place, and say where each value now comes from.

    Returns:
        What is wrong with the overrides themselves; what is wrong with their values is found later.
    """
    problems = []
    for item in (*_from_environment(environ), *_from_command_line(sets)):
        if isinstance(item, Problem):
            problems.append(item)
            continue
        try:
            _put(tree, places, item)
        except Fault as fault:
            problems.append(item.given.problem(fault.message, dotted(fault.path)))
    return problems


def _from_environment(environ: Mapping[str, str]) -> Iterator[Setting | Problem]:
    for name in sorted(environ):
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        given = Given(f"environment {shorten(name, 200)}")
        try:
            parts = tuple(map(_unescape, name.removeprefix(ENVIRONMENT_PREFIX).split("__")))
        except ValueError:
            parts = ()
        if not all(parts) or not parts:
            yield given.problem(f"write {ENVIRONMENT_PREFIX} and the path, parts joined by '__'")
        else:
            yield Setting(given, parts, environ[name])


def _unescape(part: str) -> str:
    return _HEX.sub(lambda match: bytes.fromhex(match[1]).decode("utf-8"), part)


def _from_command_line(sets: Sequence[str]) -> Iterator[Setting | Problem]:
    for text in sets:
        parts, rest = _split(text)
        if not parts or not rest.startswith("="):
            example = "--set node.drain_timeout=10s"
            yield Given(f"--set {shorten(text)}").problem(f"write PATH=VALUE, such as {example}")
        else:
            yield Setting(Given(f"--set {dotted(parts)}"), parts, rest[1:])


def _split(text: str) -> tuple[tuple[str, ...], str]:
    """The parts of a path and what follows it."""
    parts: list[str] = []
    position = 0
    while match := _PART.match(text, position):
        parts.append(match[1] if match[1] is not None else match[2])
        position = match.end()
        if text[position : position + 1] != ".":
            return tuple(parts), text[position:]
        position += 1
    return (), text


def _put(tree: Any, places: Places, setting: Setting) -> None:
    """Walk to the parent, making what is missing, and set the value.

    Raises:
        Fault: the path leads nowhere, or the value is no text of one line.
    """
    if not isinstance(tree, dict):
        return  # the file is no mapping, which is reported already
    if setting.path[0] == "include":
        raise Fault(setting.path, "'include' cannot be overridden")
    if CONTROL.search(setting.value):
        raise Fault(setting.path, "the value holds a control character or a line break")
    parent: Any = tree
    path: Path = ()
    for depth, name in enumerate(setting.path):
        last = depth == len(setting.path) - 1
        key = _key(parent, path, name)
        path = (*path, key)
        kind = shape.at(path)
        if last and (shape.is_mapping(kind) or shape.is_list(kind)):
            raise Fault(path, "a whole list or mapping cannot be overridden; name one value in it")
        child: Any = Override(setting.value) if last else _existing(parent, key, path, kind)
        if isinstance(parent, list) and key == len(parent):
            parent.append(child)
        else:
            parent[key] = child
        parent = child
    places.forget(path)
    places.put(path, setting.given)


def _key(parent: Any, path: Path, name: str) -> str | int:
    if isinstance(parent, dict):
        return name
    if not re.fullmatch(r"[0-9]{1,6}", name) or int(name) > len(parent):
        raise Fault((*path, name), f"expected a list index from 0 to {len(parent)}")
    return int(name)


def _existing(parent: Any, key: str | int, path: Path, kind: Any) -> Any:
    """The container at a path, a new one when there is none."""
    present = parent.get(key) if isinstance(parent, dict) else dict(enumerate(parent)).get(int(key))
    if isinstance(present, dict | list):
        return present
    if shape.is_mapping(kind) or shape.is_list(kind):
        return [] if shape.is_list(kind) else {}
    if kind is not None:
        raise Fault(path, "holds a single value, nothing below it")
    if shape.is_section(shape.at(path[:-1])):
        raise Fault(path, f"unknown key{did_you_mean(str(key), shape.known_keys(path[:-1]))}")
    return {}
