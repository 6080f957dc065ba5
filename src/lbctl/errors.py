"""What a command may fail with, and the exit code of each.

Pure data: importing this module imports nothing else of the project.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lbctl.config.problem import Problem


class ExitCode(IntEnum):
    """The exit codes of every command (the numbers above 63 are those of sysexits.h)."""

    OK = 0
    FAILED = 1  # it failed, errors were found, or warnings under --strict
    USAGE = 64
    REFUSED = 75  # the other side said no; trying later may help
    CONFIG = 78  # at `run`: the configuration is missing or invalid


class LbctlError(Exception):
    """A failure the operator can act on: its text is shown without a traceback."""

    exit_code: ExitCode = ExitCode.FAILED


class UsageError(LbctlError):
    """The command line makes no sense."""

    exit_code = ExitCode.USAGE


class RefusedByPeer(LbctlError):
    """The other side of a connection refused it."""

    exit_code = ExitCode.REFUSED


class ConfigError(LbctlError):
    """No usable configuration. `check` reports the same failure with `ExitCode.FAILED`."""

    exit_code = ExitCode.CONFIG


class ConfigMissing(ConfigError):
    """A configuration file was named, or is needed, and is not there."""


class ConfigInvalid(ConfigError):
    """The configuration was read and is wrong.

    Attributes:
        problems: every error found in one run, in reading order; never empty.
        warnings: what was odd but allowed, found in the same run.
    """

    def __init__(self, problems: Sequence[Problem], warnings: Sequence[Problem] = ()) -> None:
        super().__init__(problems, warnings)
        self.problems = tuple(problems)
        self.warnings = tuple(warnings)

    def __str__(self) -> str:
        """All errors, each with its place; `lbctl.config.render` adds the closing count."""
        return "\n".join(problem.render() for problem in self.problems)
