"""`_loops.pyx`, compiled on first use and kept in build/bench: by what compiles the tests' own modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]


def loops() -> ModuleType:
    """The loops, compiled against the imported lbcore.

    Raises:
        RuntimeError: lbcore's compiled modules are older than its contracts, or the compiler fails.
    """
    building = _module_from(ROOT / "tests" / "kit" / "building.py")
    module: ModuleType = building.compiled(Path(__file__).with_name("_loops.pyx"), ROOT / "build" / "bench")
    return module


def _module_from(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
