"""`${NAME}` in text values: environment variables, once, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lbctl.config.scalars import CONTROL
from lbctl.config.spelling import Expanded
from lbctl.config.values import shorten

_DOLLAR = re.compile(r"\$(?:(\$)|\{([A-Za-z_][A-Za-z0-9_]*)\})?")


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Text with its variables filled in; the same object when it holds no dollar sign.

    What a variable holds is not looked at again: neither as YAML nor for further variables.

    Raises:
        ValueError: a variable is not set or not text, or a dollar sign stands alone.
    """
    if "$" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        if match[2] is None:
            raise ValueError("a '$' stands alone; write ${NAME} for an environment variable or $$ for a '$'")
        return _look_up(match[2], environ)

    return Expanded(_DOLLAR.sub(replace, text), text)


def _look_up(name: str, environ: Mapping[str, str]) -> str:
    value = environ.get(name)
    if value is None:
        raise ValueError(f"the environment variable {shorten(name)} is not set")
    if CONTROL.search(value):
        raise ValueError(
            f"the environment variable {shorten(name)} holds a control character or a line break"
        )
    return value


def escape(text: str) -> str:
    """Text that `expand` turns back into the same text."""
    return text.replace("$", "$$")
