"""The reference is built without a warning and leaves no public name out."""

from __future__ import annotations

import ast
import html
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kit.daemon import environment

import lbcore

pytest.importorskip("sphinx", reason="sphinx is not installed: pip install '.[docs]'")
from sphinx.util.inventory import InventoryFile

DOCS = Path(__file__).parents[2] / "docs"
CODE = Path(lbcore.__file__).parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages."""
    out = tmp_path_factory.mktemp("docs")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html", DOCS, out],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=55, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return out


def test_every_public_name_and_member_is_there(built: Path) -> None:
    inventory = InventoryFile.loads((built / "objects.inv").read_bytes(), uri="")
    found = {name for kind, names in inventory.data.items() if kind.startswith("py:") for name in names}
    wanted = {f"lbcore.{name}" for name in lbcore.__all__}
    for name in lbcore.__all__:
        thing = getattr(lbcore, name)
        if isinstance(thing, type):
            wanted |= {f"lbcore.{name}.{member}" for member in own_members(thing)}
    assert sorted(wanted - found) == []


def own_members(of: type) -> set[str]:
    """Public names a class defines itself, not those of tuples and exceptions; fields are in its text."""
    fields = getattr(of, "__dataclass_fields__", None) or getattr(of, "_fields", ())
    return {name for name in vars(of) if not name.startswith("_") and name not in fields}


def test_every_compiled_member_says_what_it_is(built: Path) -> None:
    """Those without a docstring are named and explained by the docstring of their class."""
    silent = []
    for stub in CODE.glob("*.pyi"):
        for node in ast.parse(stub.read_text()).body:
            if not isinstance(node, ast.ClassDef) or node.name not in lbcore.__all__:
                continue
            owner = getattr(lbcore, node.name)
            for member in node.body:
                if not isinstance(member, ast.FunctionDef) or member.name.startswith("_"):
                    continue
                explained = vars(owner)[member.name].__doc__ or f"{member.name}:" in (owner.__doc__ or "")
                if not explained:
                    silent.append(f"{node.name}.{member.name}")
    assert silent == []


def test_signatures_have_the_types_of_the_stubs(built: Path) -> None:
    text = html.unescape(re.sub(r"<[^>]*>", "", (built / "reference.html").read_text()))
    text = " ".join(text.split())
    assert "submit_connection(sock: socket | int, limits: RateLimitManager | None = None, *," in text
    assert "async serve_connection(" in text
    assert "property open: int" in text
    assert "class lbcore.UpstreamServer(address: str, weight: int = 1, *, max_connections" in text
