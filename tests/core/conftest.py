"""The parts of the core, opened for Python."""

from pathlib import Path
from types import ModuleType

import pytest
from kit.building import compiled


@pytest.fixture(scope="session")
def probes() -> ModuleType:
    """_probes.pyx, compiled against the lbcore under test."""
    return compiled(Path(__file__).with_name("_probes.pyx"))
