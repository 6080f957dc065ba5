"""CASES.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NAMED = sorted(set(re.findall(r"`([a-z_]+/test_\w+\.py(?:::\w+)?)`", (TESTS / "CASES.md").read_text())))


def test_there_are_cases() -> None:
    rows = [line for line in (TESTS / "CASES.md").read_text().splitlines() if line.startswith("| ")]
    without = [row for row in rows if ".py" not in row and not row.startswith("| case |")]
    assert without == []
    assert len(NAMED) > 50


@pytest.mark.parametrize("name", NAMED)
def test_the_test_is_there(name: str) -> None:
    path, _, function = name.partition("::")
    text = (TESTS / path).read_text()
    assert not function or re.search(rf"^ *def {function}\(", text, re.MULTILINE)
