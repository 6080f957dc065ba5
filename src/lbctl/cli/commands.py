"""The table of commands, and the group that loads each one on first use."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import click

from lbctl import __version__


@dataclass(frozen=True)
class Entry:
    """Where a command is defined; its name is also that of the object in the module.

    Attributes:
        module: imported when the command is used.
        summary: its line in the list of commands.
    """

    module: str
    summary: str


COMMANDS = {
    "run": Entry("lbctl.cli.run", "Start in the foreground; with no configuration anywhere: the demo."),
    "init": Entry("lbctl.cli.init", "Write a commented lb.yaml, and certificates if there are none."),
    "check": Entry("lbctl.cli.check", "Validate the configuration: every error, with its place."),
    "schema": Entry("lbctl.cli.schema", "Print the JSON Schema of the configuration, for editors."),
    "cert": Entry("lbctl.cli.cert", "A small certificate authority: init, issue, list, show."),
    "probe": Entry("lbctl.cli.probe", "Connect as a client and say in words what happened."),
    "version": Entry("lbctl.cli.version", "Print the versions of lbctl, Python and the TLS engines."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports only the one that is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        command = getattr(importlib.import_module(entry.module), cmd_name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry.module}.{cmd_name} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 failed, 64 usage, 75 refused by the other side (probe), "
    "78 configuration missing or invalid (run).",
)
@click.version_option(__version__, message="lbctl %(version)s")
def lbctl() -> None:
    """A TCP load balancer for zero-trust networks: mutual TLS 1.3 in, the least-loaded upstream out."""
