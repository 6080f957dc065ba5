"""Records as lines: the names of the contract, and nothing from a certificate that could fool a reader."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from lbcore import REASONS, Record
from lbctl.config import build
from lbctl.logs import lines, records
from lbctl.logs.fixes import fix
from lbctl.logs.printable import printable
from lbctl.policy import Rules

TIME = dt.datetime(2026, 11, 23, 14, 2, 11, 402000, tzinfo=dt.UTC).timestamp()
RULES_TREE: dict[str, Any] = {
    "version": 1,
    "tls": {"cert": "s.pem", "key": "s.key", "client_ca": "ca.pem"},
    "node": {"limits": "all"},
    "limits": {"default": {"rate": "1/s"}, "together": {"window": "9/1s"}, "all": {"concurrent": 9}},
    "apps": {
        "orders-db": {
            "listen": "127.0.0.1:0",
            "upstreams": [{"address": "10.0.1.11:5432"}],
            "app_limits": "together",
        },
    },
    "clients": {"mallory": {"serials": [0x2B9011AC056EF813]}},
}
RULES = Rules(build(RULES_TREE))


def record(**changes: Any) -> Record:
    fields: dict[str, Any] = {
        "event": "conn.close",
        "id": "18f-0-1841",
        "time": TIME,
        "app": "orders-db",
        "source": "10.1.2.3:51812",
        "stage": "close",
        "reason": "client_closed",
        "client": "billing-api",
        "serial": 0x4F3A910C7712A05E,
        "certificate": None,
        "claimed": False,
        "scope": None,
        "waited_ms": None,
        "would_deny": None,
        "tls": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "tls_error": None,
        "upstream": "10.0.1.11:5432",
        "attempts": 1,
        "handshake_ms": 1.8,
        "connect_ms": 0.4,
        "duration_ms": 8123.0,
        "bytes_in": 123456,
        "bytes_out": 9876543,
        "errno": 0,
    }
    return Record(**{**fields, **changes})


def denied(**changes: Any) -> Record:
    refused = {
        "event": "conn.deny",
        "id": "18f-0-1842",
        "source": "10.1.2.9:51044",
        "stage": "authorize",
        "reason": "app_not_allowed",
        "client": "mallory",
        "serial": 0x2B9011AC056EF813,
        "upstream": None,
        "attempts": 0,
        "duration_ms": 1.5,
        "bytes_in": 0,
        "bytes_out": 0,
    }
    return record(**{**refused, **changes})


def as_json(entry: Record) -> dict[str, Any]:
    line = lines.json_format("lb-1")(records.event(entry), entry.time, records.fields(entry, RULES))
    assert "\n" not in line
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def as_words(entry: Record) -> str:
    return lines.pretty(records.event(entry), entry.time, records.fields(entry, RULES))


def certificate(common_name: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lb CA")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2027, 1, 2, tzinfo=dt.UTC))
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.DER)


# ---- the contract ----------------------------------------------------------------------------------


def test_a_finished_connection() -> None:
    assert as_json(record()) == {
        "v": 1,
        "ts": "2026-11-23T14:02:11.402Z",
        "event": "conn.close",
        "node": "lb-1",
        "id": "18f-0-1841",
        "app": "orders-db",
        "src": "10.1.2.3:51812",
        "client": "billing-api",
        "serial": "4F3A910C7712A05E",
        "tls": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "upstream": "10.0.1.11:5432",
        "attempts": 1,
        "handshake_ms": 1.8,
        "connect_ms": 0.4,
        "duration_ms": 8123.0,
        "bytes_in": 123456,
        "bytes_out": 9876543,
        "reason": "client_closed",
    }


def test_a_refusal() -> None:
    assert as_json(denied(certificate=certificate("mallory"))) == {
        "v": 1,
        "ts": "2026-11-23T14:02:11.402Z",
        "event": "conn.deny",
        "node": "lb-1",
        "id": "18f-0-1842",
        "app": "orders-db",
        "src": "10.1.2.9:51044",
        "stage": "authorize",
        "reason": "app_not_allowed",
        "client": "mallory",
        "serial": "2B9011AC056EF813",
        "subject": "CN=mallory",
        "issuer": "CN=lb CA",
        "not_after": "2027-01-02T00:00:00Z",
        "duration_ms": 1.5,
        "config": 1,
        "fix": 'add "orders-db" under clients.mallory.apps',
    }


def test_what_is_not_known_is_left_out() -> None:
    entry = as_json(record(client=None, serial=None, tls=None, cipher=None, handshake_ms=None))
    assert not {"client", "serial", "tls", "cipher", "handshake_ms"} & set(entry)


def test_what_a_limit_did_to_a_connection_that_was_let_in() -> None:
    entry = record(waited_ms=12.5, would_deny="rate", scope="application")
    found = as_json(entry)
    assert (found["waited_ms"], found["would_deny"], found["scope"]) == (12.5, "rate", "application")
    assert "  waited_ms=12.5  would_deny=rate  " in as_words(entry)
    assert not {"waited_ms", "would_deny", "scope"} & set(as_json(record()))


def test_how_long_a_refused_connection_had_waited() -> None:
    entry = denied(stage="limit", reason="limit_wait", scope="client", waited_ms=2000.0)
    assert as_json(entry)["waited_ms"] == 2000.0
    assert "  limit_wait  waited_ms=2000.0  " in as_words(entry)


@pytest.mark.parametrize("reason", ["max_lifetime", "replaced"])
def test_an_end_that_a_limit_brought_names_its_scope(reason: str) -> None:
    found = as_json(record(stage="forward", reason=reason, scope="client"))
    assert (found["event"], found["reason"], found["scope"]) == ("conn.close", reason, "client")
    assert "fix" not in found


def test_a_system_error_has_its_name() -> None:
    assert as_json(denied(stage="dial", reason="connect_failed", errno=111))["errno"] == "ECONNREFUSED"


def test_a_name_that_was_not_proven_is_marked() -> None:
    assert as_json(denied(claimed=True))["claimed"] is True
    assert "claimed" not in as_json(denied())


def test_a_client_that_left_was_not_refused() -> None:
    entry = as_json(denied(reason="client_gone", stage="handshake"))
    assert entry["event"] == "conn.close"
    assert entry["stage"] == "handshake"
    assert "fix" not in entry


def test_a_certificate_nobody_can_read_costs_only_its_names() -> None:
    entry = as_json(denied(certificate=b"\x30\x03\x02\x01"))
    assert entry["reason"] == "app_not_allowed"
    assert not {"subject", "issuer", "not_after"} & set(entry)


def test_words_of_a_refusal() -> None:
    assert as_words(denied())[8:] == (
        " DENIED     orders-db  10.1.2.9:51044  mallory (2B90…F813)  app_not_allowed  id=18f-0-1842"
        '  fix: add "orders-db" under clients.mallory.apps'
    )


def test_words_of_a_connection() -> None:
    assert as_words(record())[8:] == (
        " closed     orders-db  10.1.2.3:51812  billing-api (4F3A…A05E)  → 10.0.1.11:5432  client_closed"
        "  in=123456 out=9876543 ms=8123  id=18f-0-1841"
    )


# ---- what to do about it ---------------------------------------------------------------------------

NOTHING_TO_CONFIGURE = {
    "handshake_too_big", "handshake_failed", "client_blocked",
    # of later versions
    "upstream_tls",
}  # fmt: skip
REFUSALS = REASONS[REASONS.index("node_full") : REASONS.index("client_closed")]


@pytest.mark.parametrize("reason", sorted(set(REFUSALS) - {"client_gone"} - NOTHING_TO_CONFIGURE))
def test_every_refusal_says_how_to_mend_it(reason: str) -> None:
    assert fix(denied(reason=reason), RULES)


def test_the_fix_of_an_unknown_serial_can_be_pasted() -> None:
    entry = denied(reason="unknown_serial", client=None, serial=0x4F3A910C7712A05E)
    assert fix(entry, RULES) == 'add "4F:3A:91:0C:77:12:A0:5E" under clients.NAME.serials'


def test_the_fix_of_a_limit_names_its_class() -> None:
    assert "limits.default" in str(fix(denied(reason="rate"), RULES))


def test_the_fix_of_a_full_app_names_the_keys_that_are_set() -> None:
    entry = denied(reason="app_full", scope="application")
    for app, together, words in [
        ({"max_connections": 5}, {"window": "9/1s"}, "raise apps.orders-db.max_connections"),
        ({}, {"concurrent": 5}, "raise limits.together.concurrent"),
        (
            {"max_connections": 5},
            {"concurrent": 5},
            "raise apps.orders-db.max_connections or limits.together.concurrent",
        ),
    ]:
        tree = RULES_TREE | {"limits": {**RULES_TREE["limits"], "together": together}}
        tree["apps"] = {"orders-db": {**RULES_TREE["apps"]["orders-db"], **app}}
        assert fix(entry, Rules(build(tree))) == words


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (None, "raise window in limits.default, or let the client slow down"),
        ("client", "raise window in limits.default, or let the client slow down"),
        (
            "application",
            "raise window in limits.together, which all clients of the app share, or let them slow down",
        ),
        ("global", "raise window in limits.all, which all clients of the node share, or let them slow down"),
    ],
)
def test_the_fix_of_a_limit_names_the_class_of_its_scope(scope: str | None, words: str) -> None:
    assert fix(denied(reason="window", scope=scope), RULES) == words


# ---- text from certificates ------------------------------------------------------------------------

NASTY = [
    "\x1b[2J\x1b[31mred",
    "line\nbreak",
    "car\rriage",
    "bell\x07 nul\x00",
    "\x9b31m",  # the one-byte form of ESC [
    "\u202egnp.exe",  # right-to-left override
    "a\u2066b\u2069",
    "zero\u200bwidth",
    "\u2028line\u2029paragraph",
    "שלום",
    "Z\u0335\u0321a\u0336lgo",
    "\U000e0001tag",
    "\ud800",
]


@pytest.mark.parametrize("name", NASTY)
def test_nothing_nasty_passes(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    assert "\\" in shown


def test_honest_names_stay_as_they_are() -> None:
    for name in ("CN=Müller & Söhne,O=日本", "CN=orders-db.example"):
        assert printable(name) == name


@given(st.text(), st.integers(min_value=1, max_value=80))
def test_the_width_holds_and_everything_is_printable(text: str, width: int) -> None:
    shown = printable(text, width)
    assert len(shown) <= 2 * width
    assert shown.isprintable()


def test_a_name_cannot_break_a_line_nor_drive_a_terminal() -> None:
    der = certificate("x\x1b]0:owned\x07\r\n14:02:11 ready all is well\u202e")
    entry = denied(client=None, reason="unknown_serial", certificate=der)
    shown = as_words(entry)
    assert shown.isprintable()
    assert '"CN=x\\x1b]0:owned\\x07\\r\\n14:02:11 ready all is well\\u202e"' in shown
    assert as_json(entry)["subject"].isprintable()


def test_a_long_name_is_cut() -> None:
    der = certificate("a" * 64)
    name = x509.load_der_x509_certificate(der).subject
    assert as_json(denied(certificate=der))["subject"] == name.rfc4514_string()
    assert len(printable("a" * 100_000)) == 256


@given(st.text())
def test_no_value_reaches_a_json_line_unescaped(text: str) -> None:
    line = lines.json_format("lb-1")("x", TIME, {"value": text})
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["value"].isprintable()
    assert json.loads(line)["value"] == printable(text, 1024)
