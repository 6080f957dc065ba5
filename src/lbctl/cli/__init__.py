"""The command line: `main` runs one command and turns whatever happens into words and an exit code.

One file per command; a command's file, and what it imports, is loaded when the command is used.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

import click

from lbctl.cli.commands import lbctl
from lbctl.errors import ConfigInvalid, ExitCode, LbctlError

__all__ = ["main"]

_INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    Args:
        arguments: without the program's name; those of the process by default.
    """
    # A certificate may hold a serial that cryptography warns about; what it means is said in our words.
    warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not when it was closed before we started
            stream.reconfigure(errors="backslashreplace")  # no text may stop us
    try:
        code = _run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        _silence(sys.stdout.fileno())
        if error.errno == errno.ENOSPC:
            click.echo(f"lbctl: error: cannot write: {error.strerror}", err=True)
        code = ExitCode.FAILED
    except (click.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        result = lbctl.main(arguments, prog_name="lbctl", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return ExitCode.USAGE
    except click.ClickException as error:
        error.show()
        return ExitCode.FAILED
    except ConfigInvalid as error:
        from lbctl.config import render

        click.echo(render([*error.problems, *error.warnings]), err=True)
        return error.exit_code
    except LbctlError as error:
        click.echo(f"lbctl: error: {error}", err=True)
        return error.exit_code
    return result if isinstance(result, int) else ExitCode.OK


def _silence(descriptor: int) -> None:
    """Nothing can be written any more: let the interpreter's last flush go nowhere, without a traceback."""
    devnull = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(devnull, descriptor)
    os.close(devnull)
