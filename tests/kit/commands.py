"""`lbctl` as a command that ends by itself, and the contents of folders."""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from kit.daemon import environment

_DEADLINE = 40.0  # seconds


@dataclass(frozen=True)
class Ran:
    """A command that ended."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def lbctl_command(
    *arguments: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> Ran:
    """Runs `python -m lbctl` to its end; nothing can be typed in."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "lbctl", *map(str, arguments)],
        cwd=cwd,
        env=environment(**(environ or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_DEADLINE,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(done.returncode, done.stdout, done.stderr)


def lbctl_inside(
    *arguments: str | Path, cwd: Path | None = None, environ: Mapping[str, str] | None = None
) -> Ran:
    """The same in this process, and ten times as fast; not for tests of processes, signals or imports."""
    from lbctl.cli import main

    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, environment(**(environ or {})), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code
    assert isinstance(code, int)
    return Ran(code, *(_written(stream) for stream in (out, err)))


def _written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    buffer = stream.detach()
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()


def openssl(*arguments: str | Path) -> str:
    """What a successful `openssl` says."""
    from kit.servers import require_server

    program = require_server("openssl")
    done = subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, timeout=_DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def mode(path: Path) -> int:
    """The permission bits of a file."""
    return stat.S_IMODE(path.lstat().st_mode)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
