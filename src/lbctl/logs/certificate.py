"""What a refused certificate said about itself."""

from __future__ import annotations

import functools

from cryptography import x509

from lbctl.logs.printable import printable


@functools.lru_cache(maxsize=256)  # a client that is refused comes again; a leaf has at most 32 KiB
def names(der: bytes) -> tuple[tuple[str, str], ...]:
    """`subject`, `issuer` and `not_after` of a leaf, as far as it can be read; never raises.

    Whoever connects chose these bytes, so whatever the parser makes of them, the line is written.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        return (
            ("subject", printable(certificate.subject.rfc4514_string())),
            ("issuer", printable(certificate.issuer.rfc4514_string())),
            ("not_after", f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"),
        )
    except Exception:  # any of its many kinds
        return ()
