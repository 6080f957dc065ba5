"""What a scalar of the file means: far less than YAML would guess."""

from __future__ import annotations

import re

from lbctl.config.spelling import NumberLike

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}")
_NUMBER_LIKE = re.compile(  # in YAML 1.1 or 1.2, for any reader
    r"[-+]?(?:0x[0-9a-f_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"
    r"|(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9_]+)(?:e[-+]?[0-9]+)?|\.inf)|\.nan",
    re.IGNORECASE,
)


def resolve(text: str, plain: bool) -> str | int | float | bool | None:
    """The value of a scalar.

    Quoted text is text. Unquoted, only `true`, `false`, decimal integers and plain decimal fractions
    are more than that; whatever else some YAML reader takes for a number comes back as `NumberLike`.
    """
    if not plain:
        return text
    if text in _NULL:
        return None
    if text in ("true", "false"):
        return text == "true"
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return NumberLike(text) if _NUMBER_LIKE.fullmatch(text) else text
