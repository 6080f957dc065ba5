"""Somebody sets the clock, or NTP does: no limit notices, in a running process or over a restart."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from kit.clients import connect
from kit.daemon import Daemon, configuration
from kit.pki import Pki
from kit.servers import require_fake_clock
from kit.upstreams import Upstream

HOURS = 3600


class Clock:
    """The wall clock of the processes started with its environment, by libfaketime; the monotonic clocks
    are left alone, as the kernel does when the time is set."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "offset"
        self.set(0)
        self.environ = {
            "LD_PRELOAD": require_fake_clock(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: float) -> None:
        """Seconds it is ahead of the real one from now on."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset:+.0f}\n")
        new.replace(self._file)  # never seen empty


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as server:
        yield server


@pytest.fixture
def config(pki: Pki, upstream: Upstream) -> dict[str, Any]:
    pki.server.key.chmod(0o600)
    return configuration(pki, upstream.address)


def reach(pki: Pki, port: int) -> bool:
    """Whether alice is served; if not, she was turned away for now."""
    with connect(pki, port) as client:
        return client.is_served()


def ahead(entry: dict[str, Any]) -> float:
    """Seconds by which the clock of a line in the log is ahead of ours."""
    return datetime.fromisoformat(entry["ts"]).timestamp() - time.time()


@pytest.mark.parametrize("limit", [{"window": "2/1h"}, {"rate": "1/h", "burst": 2}], ids=["window", "rate"])
@pytest.mark.parametrize("step", [2 * HOURS, -2 * HOURS])
def test_a_step_admits_nobody_and_locks_out_nobody(
    tmp_path: Path, pki: Pki, config: dict[str, Any], clock: Clock, limit: dict[str, Any], step: int
) -> None:
    config["limits"] = {"default": limit}
    with Daemon(tmp_path, config, environ=clock.environ) as daemon:
        port = daemon.port()
        assert reach(pki, port)
        clock.set(step)
        assert [reach(pki, port) for _ in range(3)] == [True, False, False]
        denied = daemon.wait_event("conn.deny")
        assert denied["reason"] == next(iter(limit))
        assert ahead(denied) == pytest.approx(step, abs=60), "the clock of the process was stepped"
        daemon.signal(signal.SIGTERM)
        assert daemon.wait() == 0


@pytest.mark.parametrize("step", [2 * HOURS, -2 * HOURS])
def test_a_step_over_a_restart_forgives_nothing(
    tmp_path: Path, pki: Pki, config: dict[str, Any], clock: Clock, step: int
) -> None:
    config["limits"] = {"default": {"window": "2/1h"}}
    config["node"]["limits_file"] = str(tmp_path / "limits.json")
    for offset, served in ((0, [True, True, False]), (step, [False])):
        clock.set(offset)
        with Daemon(tmp_path, config, environ=clock.environ) as daemon:
            port = daemon.port()
            assert [reach(pki, port) for _ in served] == served
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
