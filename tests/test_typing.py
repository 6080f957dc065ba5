"""The stubs say what the compiled modules have, and a program that embeds the core type-checks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed: pip install '.[lint]'")
TYPING = Path(__file__).parent / "typing"


def run(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a module in a folder of its own, where it leaves its cache and sees no configuration."""
    import lbcore

    home = str(Path(lbcore.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": home},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=55,
        check=False,
    )


def test_stubs_match_the_compiled_modules(tmp_path: Path) -> None:
    allowlist = TYPING / "stubtest_allowlist.txt"
    options = ("--concise", "--ignore-unused-allowlist", "--allowlist", allowlist)
    done = run(tmp_path, "mypy.stubtest", *options, "lbcore")
    assert done.returncode == 0, done.stdout


def test_an_embedding_program_type_checks(tmp_path: Path) -> None:
    done = run(tmp_path, "mypy", "--strict", TYPING / "api.py")
    assert done.returncode == 0, done.stdout


def test_the_embedding_program_uses_every_public_name() -> None:
    import lbcore

    text = (TYPING / "api.py").read_text()
    assert [name for name in lbcore.__all__ if f"lbcore.{name}" not in text] == []
