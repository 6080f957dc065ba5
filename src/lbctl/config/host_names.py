"""Names that upstreams are looked up by: what may be written, and its one spelling.

The rules are those of RFC 1035, 2.3.1 as DNS servers of today take them, with underscores, which RFC 2782
needs and which names in private networks have. Pure: safe from any thread.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from lbctl.config.values import shorten

#: What is looked up: addresses of a host (A, AAAA), or a service (SRV).
NameKind = Literal["dns", "srv"]

NAME_MAX = 253  # characters without the last dot: 255 bytes on the wire (RFC 1035, 2.3.4)
LABEL_MAX = 63  # characters between two dots
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_SERVICE = re.compile(r"_[a-z0-9-]+\._[a-z0-9-]+\..+")


def parse_name(text: str, kind: NameKind = "dns") -> str:
    """The name in lower case. A last dot stays: with it a name is absolute, and no search list is used.

    Names outside of ASCII are refused, not encoded: the two standards (IDNA 2003 and 2008) make different
    names of some of them, and what is asked should be what is written.

    Raises:
        ValueError: it cannot be one, and how to mend it.
    """
    if not text.isascii():
        raise ValueError(f"'{shorten(text)}' is not ASCII; write the encoded name, which has xn-- in it")
    name = text.lower()
    bare = name.removesuffix(".")
    _check_size(bare)
    for label in bare.split("."):
        if _LABEL.fullmatch(label) is None:
            raise ValueError(
                f"'{shorten(text)}' is not a host name; "
                "between dots are letters, digits, '-' and '_', and '-' is neither first nor last"
            )
    is_service = _SERVICE.fullmatch(bare) is not None
    if kind == "srv" and not is_service:
        raise ValueError(f"'{shorten(text)}' is not a service; expected _service._proto.name")
    if kind == "dns":
        if is_service:
            raise ValueError(f"'{shorten(text)}' is a service, not a host; write it as 'srv:'")
        _check_not_address(bare)
    return name


def _check_size(bare: str) -> None:
    if not bare:
        raise ValueError("expected a host name such as db.internal")
    if len(bare) > NAME_MAX:
        raise ValueError(f"a host name has at most {NAME_MAX} characters")
    if max(map(len, bare.split("."))) > LABEL_MAX:
        raise ValueError(f"a host name has at most {LABEL_MAX} characters between two dots")


def _check_not_address(bare: str) -> None:
    """Some resolvers take 10.1 or 0x7f.1 for addresses; no top-level domain is a number (RFC 3696, 2)."""
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", bare.rpartition(".")[2]):
            raise ValueError(f"'{shorten(bare)}' ends in a number and is not a host name") from None
    else:
        raise ValueError(f"'{bare}' is an address, not a name; write it as 'address:'")
