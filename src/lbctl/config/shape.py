"""Walks the model by path: which keys are known somewhere, and whether a list or a mapping belongs there."""

from __future__ import annotations

import types
import typing
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel

from lbctl.config.faults import Path
from lbctl.config.model import Config

_PROGRAM: Path = ("alerts", "command", 0)


def at(path: Path) -> Any:
    """The annotation of a path, without `Annotated` and `None`; None where the model has no such path."""
    kind: Any = Config
    for part in path:
        kind = _child(kind, part)
        if kind is None:
            return None
    return kind


def known_keys(path: Path) -> list[str]:
    """The keys the section at a path may hold; empty where the operator chooses them."""
    kind = at(path)
    return list(kind.model_fields) if is_section(kind) else []


def is_section(kind: Any) -> bool:
    """Whether a kind is a mapping with fixed keys."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def is_list(kind: Any) -> bool:
    """Whether a kind is a list in the file."""
    return typing.get_origin(kind) is tuple


def is_mapping(kind: Any) -> bool:
    """Whether a kind is a mapping, with fixed keys or without."""
    return is_section(kind) or typing.get_origin(kind) is dict


def is_path(path: Path) -> bool:
    """Whether a relative value starts from the folder of the file; of a command only the program does."""
    return at(path) is FilePath or path == _PROGRAM


def choices(kind: Any) -> tuple[Any, ...]:
    """The allowed values of a `Literal`; empty for anything else."""
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def _child(kind: Any, part: str | int) -> Any:
    if is_section(kind):
        field = kind.model_fields.get(part)
        return None if field is None else _bare(field.annotation)
    if typing.get_origin(kind) is dict:
        return _bare(typing.get_args(kind)[1])
    return _bare(typing.get_args(kind)[0]) if is_list(kind) and isinstance(part, int) else None


def _bare(annotation: Any) -> Any:
    if typing.get_origin(annotation) is typing.Annotated:
        return _bare(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return _bare(next(arg for arg in typing.get_args(annotation) if arg is not type(None)))
    return annotation
