"""Programs that take alerts, and what an operator is told of them."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path
from typing import Any

from kit.waiting import wait_until


class Said:
    """Takes events.

    Attributes:
        events: name and fields, in their order.
    """

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._lock = threading.Lock()

    def __call__(self, event: str, **fields: Any) -> None:
        with self._lock:
            self.events.append((event, fields))

    def names(self) -> list[str]:
        """Of the events."""
        with self._lock:
            return [name for name, _ in self.events]

    def wait(self, name: str) -> dict[str, Any]:
        """The fields of the first event of a name."""

        def look() -> list[dict[str, Any]]:
            with self._lock:
                return [fields for event, fields in self.events if event == name]

        return wait_until(look, f"event {name}, there are {self.names()}")[0]


def program(path: Path, code: str, *, shell: bool = False) -> str:
    """An executable file: Python, whose `out` is a file beside it, or a shell's script."""
    if shell:
        path.write_text(f"#!/bin/sh\nout={path}.out\n{code}\n")
    else:
        head = f"#!{sys.executable} -IS\nimport os, sys, time\nout = {str(path) + '.out'!r}\n"
        path.write_text(head + code + "\n")
    path.chmod(0o755)
    return str(path)


def written(path: str) -> str:
    """What a program has written to its `out` so far."""
    with contextlib.suppress(FileNotFoundError):
        return Path(path + ".out").read_text()
    return ""
