"""The stubs say what the compiled modules have, and a program that embeds the core type-checks."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit.building import SOURCES

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


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("engine", "Engine"),
        ("application", "Application"),
        ("application", "UpstreamServer"),
        ("limits", "RateLimitManager"),
    ],
)
def test_constructors_take_what_the_stub_says(module: str, name: str) -> None:
    """An extension type's constructor hides its signature at run time, so the source is compared."""
    assert constructor(SOURCES / f"{module}.pyi", name) == constructor(SOURCES / f"{module}.pyx", name)


def constructor(path: Path, name: str) -> list[str]:
    """The arguments of a class's __init__ and their defaults, without types."""
    found = re.search(rf"class {name}:.*?def __init__\((.*?)\)(?: -> None)?:", path.read_text(), re.S)
    assert found is not None
    plain = re.sub(r"\bstr (\w+) not None", r"\1", found[1])
    arguments = ast.parse(f"def f({plain}): ...").body[0]
    assert isinstance(arguments, ast.FunctionDef)
    for argument in [*arguments.args.args, *arguments.args.kwonlyargs]:
        argument.annotation = None
    return ast.unparse(arguments.args).split(", ")
