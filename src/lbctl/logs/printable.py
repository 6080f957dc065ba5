"""Text of unknown origin, made fit for one line of a terminal."""

from __future__ import annotations

import unicodedata

WIDTH = 256  # characters; a distinguished name seldom has a hundred
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})


def printable(text: str, width: int = WIDTH) -> str:
    """The text with everything escaped that could fool a reader, cut to a width.

    Escaped are control characters, line breaks and terminal sequences, invisible and direction
    characters, and also letters written from right to left and combining marks: a terminal that
    honours them moves or covers what stands beside them.
    """
    if len(text) <= width and text.isascii() and text.isprintable():
        return text
    shown = "".join(map(_shown, text[: width + 1]))
    return shown if len(text) <= width and len(shown) <= 2 * width else shown[: width - 1] + "…"


def _shown(char: str) -> str:
    harmless = (
        char.isprintable()
        and unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT
        and not unicodedata.category(char).startswith("M")
    )
    return char if harmless else char.encode("unicode_escape", "backslashreplace").decode("ascii")
