"""Fixtures of the examples."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.pki import Pki
from kit.upstreams import Upstream


@pytest.fixture
def upstream(keep: Callable[[Any], Any]) -> Upstream:
    """An echo server."""
    server: Upstream = keep(Upstream())
    return server


@pytest.fixture
def certs(tmp_path: Path, pki: Pki) -> Path:
    """A folder `certs` as `lbctl cert demo` makes it, in the test's own."""
    folder = tmp_path / "certs"
    folder.mkdir()
    shutil.copy(pki.server.cert, folder / "server.pem")
    shutil.copy(pki.server.key, folder / "server.key")
    shutil.copy(pki.ca.cert, folder / "ca.pem")
    return folder
