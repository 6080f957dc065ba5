"""When the end of a certificate is worth an alert."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from kit.pki import Pki

from lbctl.alerts import Expiry, ExpiryWatch
from lbctl.config import build, named_certificates
from lbctl.logs.certificate import not_after

DAY = timedelta(days=1)
END = datetime(2026, 11, 23, 12, tzinfo=UTC)


class Calendar:
    """A clock that is moved by hand.

    Attributes:
        now: the time.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now.timestamp()


def watch(left: timedelta, **options: int) -> tuple[ExpiryWatch, Calendar]:
    calendar = Calendar(END - left)
    return ExpiryWatch(clock=calendar, **options), calendar


def thresholds(due: list[Expiry]) -> list[str]:
    return [expiry.fields["threshold"] for expiry in due]


def test_once_for_each_threshold() -> None:
    watched, calendar = watch(40 * DAY)
    due = []
    while calendar.now < END + 3 * DAY:
        due += watched.seen("client", "alice", 0xAB, END)
        calendar.now += timedelta(hours=5)
    assert thresholds(due) == ["30d", "7d", "1d"]
    assert len({expiry.subject for expiry in due}) == 3


def test_of_several_at_once_only_the_nearest() -> None:
    watched, calendar = watch(6 * DAY)
    assert thresholds(watched.seen("file", "a.pem", 1, END)) == ["7d"]
    calendar.now = END - DAY / 2
    assert thresholds(watched.seen("file", "a.pem", 1, END)) == ["1d"]
    calendar.now = END - 20 * DAY
    assert watched.seen("file", "a.pem", 1, END) == [], "the clock was set back"


def test_what_an_alert_says() -> None:
    (due,) = watch(6.5 * DAY)[0].seen("client", "alice\x1b", 0xABC, END)
    assert due.message == "the certificate of client alice\\x1b expires in 6d, on 2026-11-23 12:00 UTC"
    assert due.fields == {
        "client": "alice\x1b",
        "serial": "0ABC",
        "not_after": "2026-11-23T12:00:00Z",
        "threshold": "7d",
    }
    (due,) = watch(-DAY)[0].seen("file", "/etc/lb/a.pem", 1, END)
    assert due.message == "/etc/lb/a.pem expired on 2026-11-23 12:00 UTC"
    assert due.fields["file"] == "/etc/lb/a.pem"


def test_a_certificate_that_was_replaced_begins_anew() -> None:
    watched, calendar = watch(DAY / 2)
    (first,) = watched.seen("file", "a.pem", 1, END)
    assert watched.seen("file", "a.pem", 2, END + 365 * DAY) == []
    calendar.now += 365 * DAY
    (second,) = watched.seen("file", "a.pem", 2, END + 365 * DAY)
    assert first.subject != second.subject


def test_the_client_seen_least_lately_is_forgotten_and_files_are_not() -> None:
    watched, _ = watch(DAY / 2, remembered_max=2)
    assert watched.seen("file", "a.pem", 1, END)
    for name in ("a", "b", "a", "c"):
        watched.seen("client", name, 1, END)
    assert watched.seen("client", "a", 1, END) == []
    assert watched.seen("client", "b", 1, END) != []
    assert watched.seen("file", "a.pem", 1, END) == []


def test_thresholds_of_ones_own() -> None:
    watched = ExpiryWatch((60.0, 3600.0), clock=Calendar(END - timedelta(minutes=5)))
    assert thresholds(watched.seen("client", "alice", 1, END)) == ["1h"]
    assert ExpiryWatch((), clock=Calendar(END)).seen("client", "alice", 1, END) == []


def test_the_end_of_a_certificate_in_a_record(pki: Pki) -> None:
    ends = x509.load_pem_x509_certificate(pki.alice.cert.read_bytes()).not_valid_after_utc
    assert not_after(pki.alice.der) == ends
    assert not_after(b"nonsense") is None


@pytest.mark.parametrize("own", [False, True], ids=["shared", "of the app"])
def test_the_certificates_of_a_configuration(pki: Pki, tmp_path: Path, own: bool) -> None:
    pair = {"cert": pki.server.cert, "key": pki.server.key}
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(pki.ca.cert.read_bytes() * 2)
    app = {"listen": "127.0.0.1:1", "upstreams": [{"address": "127.0.0.1:2"}]}
    config = build(
        {
            "version": 1,
            "tls": {**pair, "client_ca": tmp_path / "absent.pem"},
            "apps": {"web": {**app, "tls": pair} if own else app},
            "client_store": {
                "url": "https://store.example/{serial}",
                "ca": bundle,
                "cert": pki.alice.cert,
                "key": pki.alice.key,
            },
            "alerts": {"webhook": "https://hooks.example/", "ca": pki.ca.cert},
        }
    )
    found = {named.key: named for named in named_certificates(config)}
    server = "apps.web.tls.cert" if own else "tls.cert"
    assert set(found) == {server, "client_store.cert", "alerts.ca"}, "no bundle, nothing that is not there"
    assert found["client_store.cert"].serial == pki.alice.serial
    assert found[server].path == pki.server.cert
    assert found[server].not_after > datetime.now(UTC)
