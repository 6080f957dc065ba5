"""Fields as one line of text: JSON for programs, words for people.

Pure. Every text value passes `printable`, so no line can be broken and no terminal driven from outside.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from lbcore.records import SCHEMA
from lbctl.logs.printable import printable

_encode = json.JSONEncoder(separators=(",", ":")).encode
_VALUE_WIDTH = 1024  # a traceback has more than a name
#: (event, seconds since the epoch, fields) -> a line without its end.
Format = Callable[[str, float, Mapping[str, Any]], str]


def json_format(node: str, named: str = "event") -> Format:
    """One JSON object for each line; the name of what it is about is under the key `named`."""

    def write(event: str, when: float, fields: Mapping[str, Any]) -> str:
        head = {"v": SCHEMA, "ts": _utc(when), named: event, "node": node}
        line = _encode({**head, **fields})
        if len(line) <= _VALUE_WIDTH and "\\" not in line and line.isprintable():
            return line  # the encoder, which escapes all but plain ASCII, found nothing to escape
        return _encode({**head, **{name: _clean(value) for name, value in fields.items()}})

    return write


def pretty(event: str, when: float, fields: Mapping[str, Any]) -> str:
    """``14:02:11 DENIED     orders-db  10.1.2.9:51044  …``, in local time."""
    words = _WORDS.get(event, _pairs)
    label = _LABELS.get(event, event)
    return f"{_clock(int(when))} {label:<10} {words({k: _clean(v) for k, v in fields.items()})}".rstrip()


def _clean(value: Any) -> Any:
    return printable(value, _VALUE_WIDTH) if isinstance(value, str) else value


def _utc(when: float) -> str:
    milliseconds = round(when * 1000)
    return f"{_utc_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@functools.lru_cache(maxsize=8)
def _utc_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


@functools.lru_cache(maxsize=8)
def _clock(second: int) -> str:
    return datetime.fromtimestamp(second).astimezone().strftime("%H:%M:%S")


def _pairs(fields: Mapping[str, Any]) -> str:
    """``app=orders-db listen=0.0.0.0:7306  a message``"""
    pairs = [f"{name}={_quoted(value)}" for name, value in fields.items() if name != "message"]
    message = fields.get("message")
    return "  ".join(filter(None, (" ".join(pairs), message)))


def _some(fields: Mapping[str, Any], *names: str) -> Iterator[str]:
    return (f"{name}={_quoted(fields[name])}" for name in names if name in fields)


def _quoted(value: Any) -> str:
    text = str(value)
    return '"' + text.replace('"', '\\"') + '"' if " " in text or '"' in text else text


def _denied(fields: Mapping[str, Any]) -> str:
    parts = [fields.get("app", "-"), fields["src"], _who(fields), fields["reason"]]
    parts.extend(_some(fields, "upstream", "waited_ms", "would_deny", "errno", "tls_error", "id"))
    if "fix" in fields:
        parts.append(f"fix: {fields['fix']}")
    return "  ".join(parts)


def _closed(fields: Mapping[str, Any]) -> str:
    parts = [fields.get("app", "-"), fields["src"], _who(fields)]
    if "upstream" in fields:
        parts.append(f"→ {fields['upstream']}")
    parts.append(fields["reason"])
    parts.append(f"in={fields['bytes_in']} out={fields['bytes_out']} ms={fields['duration_ms']:.0f}")
    parts.extend(_some(fields, "waited_ms", "would_deny", "errno", "tls_error", "id"))
    return "  ".join(parts)


def _summed(fields: Mapping[str, Any]) -> str:
    who = fields.get("client", "-")
    return f"{fields['app']}  {who}  {fields['reason']}  {fields['count']} more in {fields['window_s']} s"


def _who(fields: Mapping[str, Any]) -> str:
    """``mallory (2B90…F813)``; the name in the certificate when the client is unknown."""
    serial = fields.get("serial")
    short = serial if serial is None or len(serial) <= 8 else f"{serial[:4]}…{serial[-4:]}"
    name = fields.get("client") or _quoted(fields.get("subject", ""))
    if not name:
        return short or "-"
    return f"{name} ({short})" if short else name


_LABELS = {
    "conn.close": "closed",
    "conn.deny": "DENIED",
    "conn.deny.sum": "DENIED",
    "conn.close.sum": "closed",
}
_WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "conn.close": _closed,
    "conn.deny": _denied,
    "conn.deny.sum": _summed,
    "conn.close.sum": _summed,
}
