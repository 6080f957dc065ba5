"""`lbctl schema`."""

from __future__ import annotations

import click

from lbctl import config
from lbctl.cli.output import json_option, write_json


@click.command()
@json_option
def schema(as_json: bool) -> None:
    """Print the JSON Schema of the configuration, for editors.

    Keep it next to the file, where its first line expects it: lbctl schema > lb.schema.json
    """
    del as_json  # it is JSON either way
    write_json(config.schema())
