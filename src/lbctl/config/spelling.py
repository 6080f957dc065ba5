"""How a scalar was spelled, where that matters to the field it lands in.

A value is plain `str`, `int`, `float` or `bool` unless one of these says more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class NumberLike(str):
    """Unquoted text that some YAML reader takes for a number: `0x1001`, `1e5`, `0123`, `22:22`."""

    __slots__ = ()


class Override(str):
    """Text from the command line or the environment: it has no type until a field gives it one."""

    __slots__ = ()


class Expanded(str):
    """Text that held `${NAME}`. Like an override it has no type of its own.

    Attributes:
        written: the text as the file has it, safe to show.
    """

    written: str

    def __new__(cls, value: str, written: str) -> Expanded:
        text = super().__new__(cls, value)
        text.written = written
        return text


@dataclass(frozen=True)
class Reading:
    """Validation context of values that were read and not built in Python.

    Attributes:
        base: the directory relative paths start from.
        typed: values come from Python, where seconds and serials may be numbers.
    """

    base: Path
    typed: bool = False
