"""A record of the engine as the fields of one log line.

The names and their order are a contract: programs read them. A field without a value is left out.

The line of a usual finished connection is written by the core itself (lbcore/record_lines.pyx): what
changes in `_closed`, or in the head that `lines.json_format` writes, changes there as well.
tests/core/test_record_lines.py compares the two.
"""

from __future__ import annotations

import errno
from typing import Any

from lbcore import Record
from lbctl.logs import certificate
from lbctl.logs.fixes import fix
from lbctl.policy import Rules

Fields = dict[str, Any]
GENERATION = 1  # of the configuration; it is read once, at start


def fields(record: Record, rules: Rules) -> Fields:
    """The fields of a record, from `id` on; the event is `event(record)`."""
    return _denied(record, rules) if event(record) == "conn.deny" else _closed(record)


def event(record: Record) -> str:
    """`conn.close` or `conn.deny`."""
    return event_of_refusal(record.reason) if record.event == "conn.deny" else record.event


def event_of_refusal(reason: str) -> str:
    """A client that left by itself was not refused."""
    return "conn.close" if reason == "client_gone" else "conn.deny"


def _closed(record: Record) -> Fields:
    found: Fields = {
        "id": record.id,
        "app": record.app,
        "src": record.source,
        "stage": record.stage if record.event == "conn.deny" else None,
        "client": record.client,
        "serial": serial_text(record.serial),
        "tls": record.tls,
        "cipher": record.cipher,
        "upstream": record.upstream,
        "attempts": record.attempts,
        "handshake_ms": record.handshake_ms,
        "waited_ms": record.waited_ms,
        "connect_ms": record.connect_ms,
        "duration_ms": record.duration_ms,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "reason": record.reason,
        "scope": record.scope,
        "would_deny": record.would_deny,
        "errno": _errno(record.errno),
        "tls_error": record.tls_error,
    }
    return {name: value for name, value in found.items() if value is not None}


def _denied(record: Record, rules: Rules) -> Fields:
    names = dict(certificate.names(record.certificate)) if record.certificate else {}
    found: Fields = {
        "id": record.id,
        "app": record.app,
        "src": record.source,
        "stage": record.stage,
        "reason": record.reason,
        "client": record.client,
        "serial": serial_text(record.serial),
        "subject": names.get("subject"),
        "issuer": names.get("issuer"),
        "not_after": names.get("not_after"),
        "claimed": record.claimed or None,
        "scope": record.scope,
        "upstream": record.upstream,
        "attempts": record.attempts or None,
        "waited_ms": record.waited_ms,
        "duration_ms": record.duration_ms,
        "would_deny": record.would_deny,
        "errno": _errno(record.errno),
        "tls_error": record.tls_error,
        "config": GENERATION,
        "fix": fix(record, rules),
    }
    return {name: value for name, value in found.items() if value is not None}


def serial_text(serial: int | None) -> str | None:
    """Upper-case hexadecimal, whole octets: ``4F3A910C7712A05E``."""
    if serial is None:
        return None
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def _errno(number: int) -> str | None:
    return errno.errorcode.get(number, str(number)) if number else None
