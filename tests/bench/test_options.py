"""Values on the command lines of the bench that nothing can be measured with."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import __main__ as compare
from bench import floor, hostile


@pytest.mark.parametrize("rounds", ["0", "-1", "1.5", "many", "²", ""])
@pytest.mark.parametrize("main", [compare.main, floor.main, hostile.main])
def test_no_rounds(
    main: Callable[[list[str]], object], rounds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--rounds={rounds}"])
    assert ended.value.code == 2
    assert "argument --rounds: a whole number of at least 1" in capsys.readouterr().err
