"""Where each value of a configuration was written."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from lbctl.config.faults import Fault, Path, dotted
from lbctl.config.problem import Problem


class Source:
    """One file's name, as messages show it, and its lines."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._text = text

    @cached_property
    def _lines(self) -> list[str]:
        return self._text.replace("\r\n", "\n").replace("\r", "\n").split("\n")

    def line(self, number: int) -> str:
        """A line's text, counted from 1; empty beyond the end."""
        return self._lines[number - 1] if 0 < number <= len(self._lines) else ""


class _Node(Protocol):
    line: int
    column: int
    scalar: str | None


@dataclass(frozen=True, slots=True)
class Mark:
    """The place of one value in a file.

    Attributes:
        source: the file.
        line, column: of the value, counted from 1.
        excerpt: whether showing the line helps: not for a whole list or mapping.
        key: line and column of the key in front of it, if there is one.
    """

    source: Source
    line: int
    column: int
    excerpt: bool = True
    key: tuple[int, int] | None = None

    @classmethod
    def of(cls, source: Source, node: _Node, key: _Node | None) -> Mark:
        """The mark of a parsed node."""
        key_at = (key.line, key.column) if key is not None else None
        return cls(source, node.line, node.column, node.scalar is not None, key_at)

    def problem(self, message: str, path: str = "", at: Literal["key", "value"] = "value") -> Problem:
        """An error at this place."""
        line, column, excerpt = self.line, self.column, self.excerpt
        if at == "key" and self.key is not None:
            (line, column), excerpt = self.key, True
        text = self.source.line(line) if excerpt else None
        return Problem(message, self.source.name, line, column, path, text)

    def origin(self) -> str:
        """``file:line``, for `check --print --origin`."""
        return f"{self.source.name}:{self.line}"


@dataclass(frozen=True, slots=True)
class Given:
    """A value from the command line or the environment.

    Attributes:
        label: ``--set node.name`` or ``environment LBCTL_SET__node__name``.
    """

    label: str

    def problem(self, message: str, path: str = "", at: Literal["key", "value"] = "value") -> Problem:
        """An error of this override."""
        return Problem(message, self.label, path=path)

    def origin(self) -> str:
        """The label, for `check --print --origin`."""
        return self.label


class Places:
    """The place of each path of a tree; what has none was built in Python or is a default."""

    def __init__(self) -> None:
        self._by_path: dict[Path, Mark | Given] = {}

    def put(self, path: Path, place: Mark | Given) -> None:
        """Note or replace the place of a path."""
        self._by_path[path] = place

    def get(self, path: Path) -> Mark | Given | None:
        """The place of exactly this path."""
        return self._by_path.get(path)

    def forget(self, path: Path) -> None:
        """Drop what is known of a path and everything below it."""
        for known in [known for known in self._by_path if known[: len(path)] == path]:
            del self._by_path[known]

    def take_over(self, other: Places, clients: set[str]) -> None:
        """Note what another file says about these clients."""
        for path, place in other._by_path.items():
            if path[:1] == ("clients",) and path[1:2] and path[1] in clients:
                self._by_path[path] = place

    def problem(self, fault: Fault) -> Problem:
        """A fault with its place: its own, or that of the nearest thing around it."""
        path, at = fault.path, fault.at
        while (place := self._by_path.get(path)) is None:
            if not path:
                return Problem(self._message(fault, None), path=dotted(fault.path))
            path, at = path[:-1], "key"
        return place.problem(self._message(fault, place), dotted(fault.path), at)

    def _message(self, fault: Fault, place: Mark | Given | None) -> str:
        first = self._by_path.get(fault.also) if fault.also is not None else None
        if first is None:
            return fault.message
        if isinstance(first, Mark) and isinstance(place, Mark) and first.source is place.source:
            return f"{fault.message} (first at line {first.line})"
        return f"{fault.message} (first at {first.origin()})"
