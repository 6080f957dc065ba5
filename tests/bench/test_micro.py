"""The loops that are timed do what they say, or say that they do not."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.micro import parts
from bench.micro.compiled import loops
from lbctl import config


def test_every_loop_does_its_units_again_and_again() -> None:
    for name, make in parts.rows().items():
        runner = make()
        for count in (1, 1000, 100_000):
            before = time.monotonic_ns()
            counted = runner.run(count)
            # No processor does a unit in a tenth of a nanosecond: less is a loop that the compiler took away.
            assert count // 10 <= counted <= time.monotonic_ns() - before, name


def test_limits_without_room_are_no_measurement() -> None:
    runner = loops().Limits(parts.nested(1, rate=1.0, burst=3))
    with pytest.raises(RuntimeError, match="7 of 10 were refused"):
        runner.run(10)


def test_a_scope_with_room_is_no_refusal() -> None:
    with pytest.raises(RuntimeError, match="10 of 10 were admitted"):
        loops().Refusals(parts.nested(1)).run(10)


def test_the_configuration_is_valid_and_has_its_clients(tmp_path: Path) -> None:
    loaded = config.load(parts.configuration(tmp_path, 50))
    assert len(loaded.clients) == 50
