"""The certificates in the files a configuration names, and when they end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from lbctl.config.faults import dotted
from lbctl.config.model import Config
from lbctl.config.values import format_duration

PEM_MAX = 1024 * 1024  # bytes; a chain has a few thousand


class NamedCertificate(NamedTuple):
    """A certificate in a file.

    Attributes:
        key: of the configuration, such as ``tls.cert``.
        path: the file.
        serial: its number.
        not_after: its end, with a zone.
    """

    key: str
    path: Path
    serial: int
    not_after: datetime


def named_certificates(config: Config) -> Iterator[NamedCertificate]:
    """Every certificate whose end matters: of chains the first, of CA files those with one alone.

    A file that cannot be read is passed over: `check_files` says so.
    """
    for key, path, is_chain in _files(config):
        try:
            with path.open("rb") as file:
                found = x509.load_pem_x509_certificates(file.read(PEM_MAX))
        except (OSError, ValueError):
            continue
        if is_chain or len(found) == 1:
            yield NamedCertificate(key, path, found[0].serial_number, found[0].not_valid_after_utc)


def remaining(ends: datetime, now: datetime) -> str:
    """``expires in 6d, on 2026-11-29 12:00 UTC``, or when it has."""
    left = (ends - now).total_seconds()
    if left < 0:
        return f"expired on {ends:%Y-%m-%d %H:%M} UTC"
    whole = left // 86400 * 86400 or left // 3600 * 3600 or left // 60 * 60
    return f"expires in {format_duration(whole)}, on {ends:%Y-%m-%d %H:%M} UTC"


def _files(config: Config) -> Iterator[tuple[str, Path, bool]]:
    """Key, path, and whether it is a chain."""
    if config.client_store is not None:
        for name, path in (("ca", config.client_store.ca), ("cert", config.client_store.cert)):
            if path is not None:
                yield dotted(("client_store", name)), path, name == "cert"
    for name, app in config.apps.items():
        if app.upstream_tls is not None:
            yield dotted(("apps", name, "upstream_tls", "ca")), app.upstream_tls.ca, False
            if app.upstream_tls.cert is not None:
                yield dotted(("apps", name, "upstream_tls", "cert")), app.upstream_tls.cert, True
    if config.alerts is not None and config.alerts.ca is not None:
        yield "alerts.ca", config.alerts.ca, False
    if config.tls is None:
        return
    if any(app.tls is None and not app.plaintext for app in config.apps.values()):
        yield "tls.cert", config.tls.cert, True
    yield "tls.client_ca", config.tls.client_ca, False
    for name, app in config.apps.items():
        if app.tls is not None:
            yield dotted(("apps", name, "tls", "cert")), app.tls.cert, True
