"""The bench is not installed: it is found next to the tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import certificates
from bench.proxies import Job
from bench.upstream import Upstreams


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def job(made: certificates.Certificates) -> Iterator[Job]:
    with Upstreams() as started:
        yield Job(made, started.ports)
