"""What callgrind wrote down, read: instructions by function, and who called whom how often.

The format: https://valgrind.org/docs/manual/cl-format.html. Names are given once, with a number, and then by
the number; a line of the source may be relative to the one before.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_NAMED = re.compile(r"(c?)(ob|fn|fl|fi|fe)=\((\d+)\)(?: (.*))?$")
_AGAIN = re.compile(r"'\d+$")  # how callgrind marks a function that is called by itself
_CALLS = re.compile(r"calls=(\d+) ")
_COST = re.compile(r"([+-]?\d+|\*)(?: (\d+))?$")
_TRIGGER = "desc: Trigger: Client Request: "


@dataclass(frozen=True)
class Function:
    """Where code is: the file that is mapped, and the symbol in it."""

    object: str
    name: str


@dataclass
class Profile:
    """One file of callgrind's.

    Attributes:
        name: what the program called it.
        spent: instructions of each function, without those of whom it calls.
        lines: the same by line of the source: (function, file, line); inlined code has its own.
        calls: how often (caller, callee) happened.
    """

    name: str = ""
    spent: Counter[Function] = field(default_factory=Counter)
    lines: Counter[tuple[Function, str, int]] = field(default_factory=Counter)
    calls: Counter[tuple[Function, Function]] = field(default_factory=Counter)


def read(path: Path) -> Profile:
    """One file."""
    with path.open() as lines:
        return parse(lines)


def parse(lines: Iterable[str]) -> Profile:
    """The same from its lines."""
    reading = _Reading()
    for line in lines:
        reading.take(line.rstrip("\n"))
    return reading.profile


class _Reading:
    def __init__(self) -> None:
        self.profile = Profile()
        self._names: dict[tuple[str, str], str] = {}
        self._at = {"ob": "", "fn": "", "cob": "", "cfn": ""}
        self._file = ""
        self._line = 0
        self._called = False  # the next line is what a call cost, which is not the caller's own

    def take(self, line: str) -> None:
        if line.startswith(_TRIGGER):
            self.profile.name = line.removeprefix(_TRIGGER)
        elif named := _NAMED.match(line):
            self._name(*named.groups())
        elif calls := _CALLS.match(line):
            self._call(int(calls[1]))
        elif cost := _COST.match(line):
            self._cost(cost[1], int(cost[2] or 0))

    def _name(self, called: str, kind: str, number: str, name: str | None) -> None:
        space = kind if kind in ("ob", "fn") else "file"
        if name is not None:
            self._names[space, number] = _AGAIN.sub("", name)
        if space != "file":
            self._at[called + kind] = self._names[space, number]
        elif not called:
            self._file = self._names[space, number]
        if called + kind == "ob":
            self._at["cob"] = ""

    def _call(self, count: int) -> None:
        callee = Function(self._at["cob"] or self._at["ob"], self._at["cfn"])
        self.profile.calls[self._function(), callee] += count
        self._at["cob"] = ""
        self._called = True

    def _cost(self, position: str, count: int) -> None:
        if position[0] in "+-":
            self._line += int(position)
        elif position != "*":
            self._line = int(position)
        if self._called:
            self._called = False
            return
        self.profile.spent[self._function()] += count
        self.profile.lines[self._function(), self._file, self._line] += count

    def _function(self) -> Function:
        return Function(self._at["ob"], self._at["fn"])
