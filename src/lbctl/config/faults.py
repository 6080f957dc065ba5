"""One thing wrong with a configuration, named by its path in the tree and not yet by its place in a file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Literal

Path = tuple[str | int, ...]


class Fault(ValueError):
    """A broken rule.

    Attributes:
        path: where in the tree, such as ``("apps", "web", "listen")``.
        message: what is wrong and how to mend it.
        at: whether the key or the value at that path is to be shown.
        also: the path of a second value that takes part, or None.
    """

    def __init__(
        self, path: Path, message: str, *, at: Literal["key", "value"] = "value", also: Path | None = None
    ) -> None:
        super().__init__(message)
        self.path = path
        self.message = message
        self.at = at
        self.also = also


def dotted(path: Path) -> str:
    """A path as messages and `--set` write it: ``apps.web.upstreams.0.address``."""
    return ".".join(_part(part) for part in path)


def _part(part: str | int) -> str:
    text = str(part)
    if re.fullmatch(r"[^\s.\"'=]+", text) and text.isprintable():
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'listen'?"``, or nothing when no known word is near. A name in the file may be
    unprintable: that is a fault of its own, and nobody means it."""
    by_fold = {name.casefold(): name for name in known if name.isprintable()}
    near = difflib.get_close_matches(word[:200].casefold(), by_fold, n=1)
    return f"; did you mean '{by_fold[near[0]]}'?" if near else ""
