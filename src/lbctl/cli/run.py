"""`lbctl run`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from lbctl import config, daemon, systemd
from lbctl.config import Loaded, render
from lbctl.config.overrides import ENVIRONMENT_PREFIX
from lbctl.config.values import shorten
from lbctl.errors import ConfigInvalid, ConfigMissing


@click.command()
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="The configuration file.")
@click.option("--demo", "wants_demo", is_flag=True, help="Run the demo, whatever configuration there is.")
@click.option("--dry-run", is_flag=True, help="Check everything, say what would be opened, and end.")
@click.option("--set", "sets", multiple=True, metavar="PATH=VALUE", help="Override one value (repeatable).")
@click.pass_context
def run(
    ctx: click.Context, file: Path | None, wants_demo: bool, dry_run: bool, sets: tuple[str, ...]
) -> None:
    """Start in the foreground.

    The configuration is --config, else $LBCTL_CONFIG, else ./lb.yaml, else /etc/lbctl/lb.yaml; with none
    of them the demo starts, on loopback only, with certificates in ./certs.

    A value comes from, the later winning: its default, the file, the environment
    (LBCTL_SET__node__drain_timeout=10s), --set (node.drain_timeout=10s).

    SIGTERM or Ctrl-C stops accepting and waits for open connections up to node.drain_timeout; the second
    one ends them at once. Both exit 0.
    """
    if wants_demo and (file is not None or sets):
        raise click.UsageError("--demo has its own configuration: it goes with neither --config nor --set")
    path = None if wants_demo else config.find_config(file, os.environ)
    if path is None:
        ctx.exit(_run_demo(wants_demo, dry_run, sets))
    loaded = config.read(path, os.environ, sets)
    if dry_run:
        _show_plan(loaded)
        return
    ctx.exit(daemon.serve(loaded, exiting=True))


def _run_demo(wanted: bool, dry_run: bool, sets: tuple[str, ...]) -> int:
    if not wanted and systemd.is_service(os.environ, os.getpid()):
        raise ConfigMissing(
            "no configuration: a service needs --config FILE, $LBCTL_CONFIG or /etc/lbctl/lb.yaml"
        )
    overrides = [*sets, *(name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX))]
    if overrides:
        raise ConfigMissing(
            f"no configuration that {shorten(overrides[0])} could override; name one with --config"
        )
    from lbctl import demo

    if dry_run:
        click.echo(demo.plan())
        return 0
    return demo.run("--demo" if wanted else "no config found")


def _show_plan(loaded: Loaded) -> None:
    """What `run` would open; with a certificate or key that cannot be used, why it would not."""
    problems = config.check_files(loaded)
    errors = [problem for problem in problems if problem.severity == "error"]
    warnings = [*loaded.warnings, *(problem for problem in problems if problem.severity == "warning")]
    if errors:
        raise ConfigInvalid(errors, warnings)
    if warnings:
        click.echo(render(warnings), err=True)
    for name, app in loaded.config.apps.items():
        upstreams = ", ".join(upstream.place for upstream in app.upstreams)
        plain = "  (plaintext)" if app.plaintext else ""
        click.echo(f"would open {app.listen} for {name} → {upstreams}{plain}")
    access = loaded.config.logging.access.file
    click.echo(f"would write records to {access if access is not None else 'stderr'}")
    limits = loaded.config.node.limits_file
    if limits is not None:
        click.echo(f"would keep limits in {limits}")
