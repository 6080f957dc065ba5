"""`lbctl init`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from lbctl import certificates, config
from lbctl.certificates import Starter, files
from lbctl.cli.first_config import LISTEN, first_config
from lbctl.config.values import shorten
from lbctl.errors import LbctlError


@click.command()
@click.argument("directory", metavar="[DIR]", type=click.Path(path_type=Path), default=Path())
def init(directory: Path) -> None:
    """Write a commented lb.yaml into DIR (here), and certificates into DIR/certs if there are none.

    The certificates of a demo in DIR/certs are kept and its clients named, so that the demo's curl lines
    go on working. lb.schema.json, for editors, is written next to it. Nothing is overwritten.
    """
    target, schema = directory / "lb.yaml", directory / "lb.schema.json"
    if files.exists(target):
        raise LbctlError(f"{_show(target)} exists already; it was not touched")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LbctlError(f"cannot create the folder {_show(directory)}: {error.strerror}") from None
    starter = certificates.starter(directory / "certs")
    click.echo(f"{_show(starter.directory)}  {_certificates(starter)}")
    if not files.exists(schema):
        files.create(schema, f"{json.dumps(config.schema(), indent=2)}\n".encode(), files.PUBLIC)
        click.echo(f"{_show(schema)}  completion and checks in editors")
    files.create(target, first_config(starter).encode(), files.PUBLIC)
    click.echo(f"{_show(target)}  one app on {LISTEN}; set its upstreams")
    click.echo(_next(target, starter), nl=False)


def _certificates(starter: Starter) -> str:
    if starter.is_demo:
        return "the demo's certificates, which last 7 days"
    if "ca" in starter.made:
        return f"new CA, certificates of {', '.join(starter.made[1:])}"
    return "your CA, kept" + (f"; new certificate: {', '.join(starter.made)}" if starter.made else "")


def _next(target: Path, starter: Starter) -> str:
    """What to do with it."""
    option = "" if target == Path("lb.yaml") else f" -c {files.in_shell(target)}"
    lines = ["next", f"  edit {_show(target)}", f"  lbctl check{option}", f"  lbctl run{option}"]
    admitted = next((client.name for client in starter.clients if client.admitted), None)
    if admitted is not None:
        port = LISTEN.rpartition(":")[2]
        names = ("ca.pem", f"{admitted}.pem", f"{admitted}.key")
        ca, cert, key = (files.in_shell(starter.directory / name) for name in names)
        lines.append(f"  curl --cacert {ca} --cert {cert} --key {key} https://localhost:{port}/")
    return "".join(f"{line}\n" for line in lines)


def _show(path: Path) -> str:
    return shorten(str(path), 200)
