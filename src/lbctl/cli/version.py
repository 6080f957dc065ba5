"""`lbctl version`."""

from __future__ import annotations

import platform

import click

from lbctl import __version__
from lbctl.cli.output import json_option, write_json
from lbctl.errors import LbctlError


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the versions of lbctl, Python and the TLS engines."""
    engines = _tls_engines()
    if as_json:
        write_json({"lbctl": __version__, "python": platform.python_version(), "tls_engines": engines})
        return
    click.echo(f"lbctl {__version__}")
    click.echo(f"python {platform.python_version()} ({platform.platform(terse=True)})")
    for name, description in engines.items():
        click.echo(f"tls {name}: {description}")


def _tls_engines() -> dict[str, str]:
    try:
        import lbcore

        return lbcore.tls_engines()
    except (ImportError, OSError, RuntimeError) as error:
        raise LbctlError(f"the data plane cannot be loaded: {error}") from None
