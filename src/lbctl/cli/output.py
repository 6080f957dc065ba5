"""What several commands do alike: JSON for programs, text for people."""

from __future__ import annotations

import json
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


def write_json(value: Any) -> None:
    """One JSON document on stdout; plain ASCII, so no text in it can play tricks on a terminal."""
    click.echo(json.dumps(value, indent=2))
