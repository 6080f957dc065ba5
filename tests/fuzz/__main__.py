"""`PYTHONPATH=src:tests python -m fuzz TARGET [libFuzzer's options]`, with atheris installed.

Inputs that reach something new are kept in `build/fuzz/TARGET`; those of `tests/fuzz/corpus/TARGET` are where
it starts from. An input that fails is written to the current directory as `crash-…`: fix the bug and add the
file to the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lbctl", "lbcore", "yaml"]):
    from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m fuzz {{{'|'.join(TARGETS)}}} [-max_total_time=SECONDS ...]")
    name = sys.argv.pop(1)
    found = Path("build/fuzz", name)
    found.mkdir(parents=True, exist_ok=True)
    atheris.Setup([*sys.argv, str(found), str(CORPUS / name)], TARGETS[name])
    atheris.Fuzz()


main()
