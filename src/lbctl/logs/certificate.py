"""What a certificate in a record says about itself."""

from __future__ import annotations

import functools
from datetime import datetime
from typing import NamedTuple

from cryptography import x509

from lbctl.logs.printable import printable


class _Said(NamedTuple):
    names: tuple[tuple[str, str], ...] = ()
    not_after: datetime | None = None


def names(der: bytes) -> tuple[tuple[str, str], ...]:
    """`subject`, `issuer` and `not_after` of a leaf, as far as it can be read; never raises."""
    return _read(der).names


def not_after(der: bytes) -> datetime | None:
    """The end of a leaf, with a zone; None where it cannot be read. Never raises."""
    return _read(der).not_after


@functools.lru_cache(maxsize=256)  # a client that is refused comes again; a leaf has at most 32 KiB
def _read(der: bytes) -> _Said:
    """Whoever connects chose these bytes, so whatever the parser makes of them, the line is written."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        ends = certificate.not_valid_after_utc
        said = (
            ("subject", printable(certificate.subject.rfc4514_string())),
            ("issuer", printable(certificate.issuer.rfc4514_string())),
            ("not_after", f"{ends:%Y-%m-%dT%H:%M:%SZ}"),
        )
    except Exception:  # any of its many kinds
        return _Said()
    return _Said(said, ends)
