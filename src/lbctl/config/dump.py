"""A configuration as YAML again: defaults filled in, what came from `${NAME}` shown as `${NAME}`.

Reading the output, in the same environment, gives an equal `Config`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

from lbctl.config import shape
from lbctl.config.expand import escape
from lbctl.config.faults import Path
from lbctl.config.load import Loaded
from lbctl.config.model import Config
from lbctl.config.scalars import resolve
from lbctl.config.spelling import Expanded

_PLAIN = re.compile(r"[A-Za-z0-9_/][A-Za-z0-9_./:%@+-]*")
_INDENT = "  "


def dump(config: Config | Loaded, *, origins: bool = False) -> str:
    """The configuration as YAML text.

    Args:
        config: with a `Loaded`, values of environment variables are not shown but named.
        origins: end each value's line with a comment: ``file:line``, the override, or ``default``.
            What was built in Python counts as ``default``.
    """
    loaded = config if isinstance(config, Loaded) else None
    model = config.config if isinstance(config, Loaded) else config
    lines = list(_mapping(model.model_dump(mode="json"), (), loaded))
    if not origins:
        return "".join(f"{text}\n" for text, _ in lines)
    width = min(60, max(len(text) for text, _ in lines))
    return "".join(
        f"{text}\n" if path is None else f"{text:<{width}}  # {_origin(path, loaded)}\n"
        for text, path in lines
    )


Lines = Iterator[tuple[str, Path | None]]  # the text, and the path of the value on that line if there is one


def _mapping(tree: dict[str, Any], path: Path, loaded: Loaded | None) -> Lines:
    for key, value in tree.items():
        if value is not None:  # None is how the model says: not written
            yield from _entry(f"{_scalar(key)}:", value, (*path, key), loaded)


def _list(items: list[Any], path: Path, loaded: Loaded | None) -> Lines:
    for index, value in enumerate(items):
        yield from _entry("-", value, (*path, index), loaded)


def _entry(head: str, value: Any, path: Path, loaded: Loaded | None) -> Lines:
    if isinstance(value, dict | list) and value:
        below = _mapping(value, path, loaded) if isinstance(value, dict) else _list(value, path, loaded)
        if head == "-" and isinstance(value, dict):
            text, at = next(below)
            yield f"- {text}", at
        else:
            yield head, None
        for text, at in below:
            yield _INDENT + text, at
    elif isinstance(value, dict | list):
        yield f"{head} {'{}' if isinstance(value, dict) else '[]'}", path
    else:
        yield f"{head} {_value(value, path, loaded)}", path


def _value(value: Any, path: Path, loaded: Loaded | None) -> str:
    written = _written(path, loaded)
    if written is not None:
        return json.dumps(written, ensure_ascii=False)
    if not isinstance(value, str):
        return json.dumps(value)
    if path[0] == "clients" and path[2:3] == ("serials",):
        return json.dumps(value)  # a serial is quoted by rule
    return _scalar(escape(value))


def _written(path: Path, loaded: Loaded | None) -> str | None:
    """The text in the file when it names environment variables."""
    value: Any = loaded.tree if loaded is not None else None
    for part in path:
        known = isinstance(value, dict) and part in value
        listed = isinstance(value, list) and isinstance(part, int) and part < len(value)
        value = value[part] if known or listed else None
    if not isinstance(value, Expanded) or value.written.replace("$$", "").count("$") == 0:
        return None
    if shape.is_path(path) and loaded is not None and not FilePath(value).is_absolute():
        return str(FilePath(escape(str(loaded.base.absolute()))) / value.written)
    return value.written


def _scalar(text: str) -> str:
    """Text, quoted unless no reader could take it for anything else."""
    plain = _PLAIN.fullmatch(text) and type(resolve(text, True)) is str and not text.endswith(":")
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _origin(path: Path, loaded: Loaded | None) -> str:
    place = loaded.places.get(path) if loaded is not None else None
    return place.origin() if place is not None else "default"
