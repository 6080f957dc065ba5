"""What `check` accepts, `run` can do: the bounds of the configuration are those of the core."""

from __future__ import annotations

from typing import Any

import pytest

import lbcore
from lbctl import config
from lbctl.config import fields, limit_values, values
from lbctl.engine_port import EnginePort
from lbctl.errors import ConfigInvalid


def tree(path: str, value: Any) -> dict[str, Any]:
    """A small configuration with one value put in."""
    found: dict[str, Any] = {
        "version": 1,
        "limits": {"default": {"rate": 1.0}, "waits": {"rate": 1.0, "mode": "delay", "max_wait": 1.0}},
        "apps": {
            "web": {
                "listen": "127.0.0.1:0",
                "plaintext": True,
                "upstreams": [{"address": "127.0.0.1:1"}],
                "app_limits": "waits",
                "connect": {},
                "health": {"passive": {}},
            }
        },
        "node": {"limits": "default"},
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
    ("limits.default.bandwidth_in", limit_values.BANDWIDTH_MIN, limit_values.BANDWIDTH_MAX),
    ("limits.default.bandwidth_out", limit_values.BANDWIDTH_MIN, limit_values.BANDWIDTH_MAX),
    ("limits.default.max_lifetime", values.DURATION_MIN, values.DURATION_MAX),
    ("limits.waits.max_wait", values.DURATION_MIN, values.DURATION_MAX),
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


@pytest.mark.parametrize("opens", [1, limit_values.WINDOW_MAX])
@pytest.mark.parametrize("period", [values.DURATION_MIN, values.DURATION_MAX])
def test_every_window_of_the_configuration_runs(opens: int, period: float) -> None:
    port = EnginePort(config.build(tree("limits.default.window", (opens, period))), lambda records: None)
    port.start()
    try:
        port.listen()
    finally:
        port.stop(0.0)


@pytest.mark.parametrize("window", [(0, 1.0), (limit_values.WINDOW_MAX + 1, 1.0), (1, 0.0009)])
def test_a_window_beyond_is_refused_by_both(window: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="window"):
        lbcore.LimitClass(window=window)
    with pytest.raises(ConfigInvalid, match="window"):
        config.build(tree("limits.default.window", window))


@pytest.mark.parametrize(
    ("limits", "argument"),
    [
        ({"mode": "delay"}, {"on_exceed": "delay"}),
        ({"max_wait": 1.0}, {"max_wait": 1.0}),
        ({"replace_oldest": True}, {"replace_oldest": True}),
        (
            {"replace_oldest": True, "concurrent": 1, "mode": "shadow"},
            {"replace_oldest": True, "max_open": 1, "on_exceed": "shadow"},
        ),
        ({"burst": 5}, {"burst": 5}),
    ],
)
def test_what_does_not_go_together_is_refused_by_both(
    limits: dict[str, Any], argument: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"max_wait|replace_oldest|burst"):
        lbcore.LimitClass(**argument)
    broken = tree("limits.default", limits)
    with pytest.raises(ConfigInvalid, match=r"max_wait|replace_oldest|burst|mode"):
        config.build(broken)


def test_a_burst_that_takes_an_age_to_refill_is_refused_by_both() -> None:
    with pytest.raises(ValueError, match="refilled"):
        lbcore.LimitClass(rate=values.RATE_MIN, burst=10**4)
    broken = tree("limits.default.rate", values.RATE_MIN)
    broken["limits"]["default"]["burst"] = 10**4
    with pytest.raises(ConfigInvalid, match="refill"):
        config.build(broken)
