"""Fixtures of the stage tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kit.upstreams import Upstream


@pytest.fixture
def upstream(keep: Callable[[Any], Any]) -> Upstream:
    """An echo server."""
    server: Upstream = keep(Upstream())
    return server
