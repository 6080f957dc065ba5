"""Which file is the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lbctl.errors import ConfigMissing

VARIABLE = "LBCTL_CONFIG"
PLACES = (Path("lb.yaml"), Path("/etc/lbctl/lb.yaml"))


def find_config(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The configuration file: `--config`, then `$LBCTL_CONFIG`, then `./lb.yaml`, then `/etc/lbctl/lb.yaml`.

    Returns:
        None when nothing was named and nothing is there.

    Raises:
        ConfigMissing: a file was named and is not there. Defaults never stand in for it.
    """
    if explicit is not None:
        return _named(explicit, "--config")
    if environ.get(VARIABLE):
        return _named(Path(environ[VARIABLE]), f"${VARIABLE}")
    return next((path for path in PLACES if path.exists()), None)


def _named(path: Path, by: str) -> Path:
    if not path.exists():
        raise ConfigMissing(f"{path}: no such file (named by {by})")
    return path
