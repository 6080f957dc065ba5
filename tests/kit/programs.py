"""Python programs as processes of their own, that say on which port they listen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kit.daemon import environment
from kit.waiting import PATIENCE


class Program:
    """Runs a program with pipes for everything it reads and writes; its first line ends with a port.

    Args:
        path: the program.
        arguments: for it.
        cwd: where it runs.

    Attributes:
        port: where it listens.
    """

    def __init__(self, path: Path, *arguments: str | Path, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(path), *map(str, arguments)],
            cwd=cwd,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = self.line()
        if not first:
            raise AssertionError(f"it ended at once: {self.ends()}")
        self.port = int(first.rpartition(":")[2])

    def line(self) -> str:
        """The next line of its output, without the end of line."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().rstrip("\n")

    def ends(self) -> tuple[int, str, str]:
        """Exit status, the rest of the output and the errors, with its input closed."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors

    def close(self) -> None:
        """Kills what is left of it."""
        self.process.kill()
        self.process.communicate()
