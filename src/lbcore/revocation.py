"""Reading certificate revocation lists (RFC 5280, 5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from lbcore.settings import Pem, read_pem

if TYPE_CHECKING:
    from cryptography import x509

ENTRIES_MAX = 1_000_000
_SERIALS_END = 2**160
_AHEAD = timedelta(minutes=5)  # a CA's clock may be ahead of ours by so much
_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


@dataclass(frozen=True)
class Revoked:
    """What some lists say together.

    Attributes:
        serials: those that were revoked, ascending.
        ends: when the first of the lists is out of date; aware, UTC.
    """

    serials: tuple[int, ...]
    ends: datetime


def read_revoked(sources: Sequence[Pem], client_ca: bytes) -> Revoked:
    """The revocation lists of one CA. Each must be complete, signed by the CA, and in date.

    Args:
        sources: paths of files, or PEM as bytes; with one list or more each.
        client_ca: the CA's certificate, PEM.

    Raises:
        OSError: a file cannot be read.
        ValueError: beginning with ``crl:``, a list cannot be used.
        ImportError: the package ``cryptography`` is not installed.
    """
    from cryptography import x509

    ca = x509.load_pem_x509_certificate(client_ca)
    serials: set[int] = set()
    ends: list[datetime] = []
    for source in sources:
        where = "crl" if isinstance(source, bytes) else f"crl: {source}"
        blocks = _BLOCK.findall(read_pem(source))
        if not blocks:
            raise ValueError(f"{where}: no certificate revocation list in PEM")
        for block in blocks:
            crl, end = _checked(block, ca, where)
            ends.append(end)
            serials.update(entry.serial_number for entry in crl)
    if len(serials) > ENTRIES_MAX:
        raise ValueError(f"crl: {len(serials)} entries; at most {ENTRIES_MAX}")
    # No other number passes as a serial of a client, so there is nothing to compare them with.
    return Revoked(tuple(sorted(serial for serial in serials if 0 < serial < _SERIALS_END)), min(ends))


def _checked(
    block: bytes, ca: x509.Certificate, where: str
) -> tuple[x509.CertificateRevocationList, datetime]:
    """A list that may be believed, and its end."""
    from cryptography import x509

    try:
        crl = x509.load_pem_x509_crl(block)
        ours = crl.issuer == ca.subject and crl.is_signature_valid(
            ca.public_key()  # type: ignore[arg-type]  # a kind that cannot sign raises
        )
        partial = any(extension.critical for extension in crl.extensions)
        starts, end = crl.last_update_utc, crl.next_update_utc
    except Exception as error:  # of the many kinds a parser has for what a stranger wrote
        raise ValueError(f"{where}: not a usable certificate revocation list ({error})") from None
    if not ours:
        raise ValueError(f"{where}: not signed by client_ca")
    if partial:
        raise ValueError(f"{where}: a partial list (a critical extension says so); a complete one is needed")
    if end is None:
        raise ValueError(f"{where}: does not say when the next one is due (nextUpdate)")
    now = datetime.now(UTC)
    if end <= now:
        raise ValueError(f"{where}: expired on {_text(end)}; get a newer list from the CA")
    if starts > now + _AHEAD:
        raise ValueError(f"{where}: begins on {_text(starts)}; see that the clock is right")
    return crl, end


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
