"""`_loops.pyx`, compiled on first use and kept in build/bench: by what compiles the tests' own modules."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from kit.building import ROOT, compiled


def loops() -> ModuleType:
    """The loops, compiled against the imported lbcore.

    Raises:
        RuntimeError: lbcore's compiled modules are older than its contracts, or the compiler fails.
    """
    return compiled(Path(__file__).with_name("_loops.pyx"), ROOT / "build" / "bench")
