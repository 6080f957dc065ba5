"""One finding about a configuration: where it is, what it is, and how both are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

_WINDOW = 120  # columns of a long source line that are shown


@dataclass(frozen=True)
class Problem:
    """An error or a warning, complete: it can be shown without the configuration at hand.

    Attributes:
        message: what is wrong and how to mend it, one line.
        file: the file as the operator named it, or ``--set ...`` / ``environment ...``; None when
            the value was built in Python.
        line: counted from 1, or None where there is no file.
        column: characters, counted from 1.
        path: the dotted path of the key, or empty.
        source: the text of the line when it helps, else None.
        severity: ``"error"`` or ``"warning"``.
    """

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    path: str = ""
    source: str | None = None
    severity: Literal["error", "warning"] = "error"

    def render(self) -> str:
        """``file:line:column: error: path: message``, with the source line and a caret below."""
        head = ": ".join(part for part in (self._place(), self.severity, self.path, self.message) if part)
        if self.source is None or self.line is None or self.column is None:
            return head
        text, column = _window(self.source, self.column)
        gutter = f"{self.line:>5}"
        return f"{head}\n{gutter} | {text}\n{' ' * len(gutter)} | {' ' * (column - 1)}^"

    def as_json(self) -> dict[str, Any]:
        """The finding for programs."""
        return {
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
        }

    def _place(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)


def _window(source: str, column: int) -> tuple[str, int]:
    """A long line cut around a column, every character one cell wide and harmless to a terminal."""
    shown = "".join(char if char.isprintable() else " " if char == "\t" else "�" for char in source)
    if len(shown) <= _WINDOW:
        return shown, column
    start = max(0, min(column - 1 - _WINDOW // 2, len(shown) - _WINDOW))
    end = start + _WINDOW
    left, right = "…" if start else "", "…" if end < len(shown) else ""
    return left + shown[start:end] + right, column - start + len(left)


def render(problems: Sequence[Problem], *, running: bool = False) -> str:
    """All findings and the closing count.

    Args:
        problems: errors and warnings, in the order to show them.
        running: there is a running configuration, and it was left as it is.
    """
    lines = [problem.render() for problem in problems]
    counts = []
    for severity in ("error", "warning"):
        number = sum(problem.severity == severity for problem in problems)
        if number:
            counts.append(f"{number} {severity}{'s' if number > 1 else ''}")
    if counts:
        closing = f"{', '.join(counts)}."
        lines.append(f"{closing} The running configuration was not touched." if running else closing)
    return "\n".join(lines)
