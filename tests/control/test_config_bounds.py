"""What `check` accepts, `run` can do: the bounds of the configuration are those of the core."""

from __future__ import annotations

from typing import Any

import pytest

import lbcore
from lbctl import config
from lbctl.config import fields, values
from lbctl.engine_port import EnginePort
from lbctl.errors import ConfigInvalid


def tree(path: str, value: Any) -> dict[str, Any]:
    """A small configuration with one value put in."""
    found: dict[str, Any] = {
        "version": 1,
        "limits": {"default": {"rate": 1.0}},
        "apps": {
            "web": {
                "listen": "127.0.0.1:0",
                "plaintext": True,
                "upstreams": [{"address": "127.0.0.1:1"}],
                "connect": {},
                "health": {"passive": {}},
            }
        },
        "node": {},
    }
    *parts, last = path.split(".")
    at: Any = found
    for part in parts:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[last] = value
    return found


DURATIONS = ("idle_timeout", "half_close_timeout", "connect.timeout", "health.passive.eject")
CASES = [
    *((f"apps.web.{key}", values.DURATION_MIN, values.DURATION_MAX) for key in DURATIONS),
    ("apps.web.tcp_keepalive", *fields.KEEPALIVE),
    ("apps.web.connect.attempts", 1, fields.ATTEMPTS_MAX),
    ("apps.web.upstreams.0.weight", 1, fields.WEIGHT_MAX),
    ("apps.web.upstreams.0.max_connections", 1, fields.COUNT_MAX),
    ("apps.web.max_connections", 1, fields.COUNT_MAX),
    ("apps.web.health.passive.failures", 1, fields.COUNT_MAX),
    ("apps.web.health.passive.max_ejected", 0.0, 1.0),
    ("limits.default.rate", values.RATE_MIN, values.RATE_MAX),
    ("limits.default.burst", 1, 10**9),
    ("limits.default.concurrent", 1, fields.COUNT_MAX),
    ("node.workers", 1, fields.WORKERS_MAX),
    ("node.max_unauthenticated", 1, fields.COUNT_MAX),
    ("authorize_timeout", values.DURATION_MIN, values.DURATION_MAX),
]


@pytest.mark.parametrize(("path", "least", "most"), CASES, ids=[case[0] for case in CASES])
def test_both_ends_run_and_beyond_is_refused(path: str, least: float, most: float) -> None:
    for value in (least, most):
        loaded = config.build(tree(path, value))
        port = EnginePort(loaded, lambda records: None)
        if path == "node.workers":
            continue  # that many threads prove nothing more
        port.start()
        try:
            port.listen()
        finally:
            port.stop(0.0)
    beyond = (least * 0.9, most * 1.1) if isinstance(least, float) else (least - 1, most + 1)
    for value in beyond:
        if value != least:  # nine tenths of nothing
            with pytest.raises(ConfigInvalid):
                config.build(tree(path, value))


def test_a_burst_that_takes_an_age_to_refill_is_refused_by_both() -> None:
    with pytest.raises(ValueError, match="refilled"):
        lbcore.LimitClass(rate=values.RATE_MIN, burst=10**4)
    broken = tree("limits.default.rate", values.RATE_MIN)
    broken["limits"]["default"]["burst"] = 10**4
    with pytest.raises(ConfigInvalid, match="refill"):
        config.build(broken)
