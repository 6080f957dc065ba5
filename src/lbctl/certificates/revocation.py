"""The CA's revocation list: `ca.crl` beside `ca.pem`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from lbctl.certificates import files, folder, pem
from lbctl.certificates.authority import BACKDATED, Authority, issued_by, now
from lbctl.certificates.files import show
from lbctl.config.values import parse_serial
from lbctl.errors import LbctlError

NAME = "ca.crl"
CRL_DAYS = 365


@dataclass(frozen=True)
class RevocationList:
    """A list as it was written, or would be.

    Attributes:
        file: where.
        number: increases with each list (RFC 5280, 5.2.3).
        ends: when a new one is due; aware, UTC.
        serials: all of them, in the order of revocation.
        serial: the one that was asked for, or None.
        added: whether that one was not on the list before.
    """

    file: Path
    number: int
    ends: datetime
    serials: tuple[int, ...]
    serial: int | None = None
    added: bool = False


def revoke(directory: Path, which: str, *, days: int = CRL_DAYS, dry_run: bool = False) -> RevocationList:
    """Put a certificate on the list, and sign it anew.

    Args:
        directory: the folder with the CA.
        which: a name in the folder, a file, or a serial in hexadecimal.
        days: until the next list is due.
        dry_run: write nothing.

    Raises:
        LbctlError: no usable CA, no such certificate, or one that the CA has not issued.
    """
    authority = folder.read_ca(directory)
    serial = _serial(directory, which, authority)
    with files.locked(directory):
        return _write(directory, authority, days, serial, dry_run)


def renew(directory: Path, *, days: int = CRL_DAYS) -> RevocationList:
    """Sign the list anew, as it is; an empty one where there was none.

    Raises:
        LbctlError: no usable CA, or the list is not the CA's.
    """
    authority = folder.read_ca(directory)
    with files.locked(directory):
        return _write(directory, authority, days, None, False)


def revoked_serials(directory: Path) -> frozenset[int]:
    """What the folder's list says; nothing where there is none, or one that cannot be read."""
    try:
        found = _read(directory / NAME)
    except LbctlError:
        return frozenset()
    return frozenset(entry.serial_number for entry in found or ())


def _serial(directory: Path, which: str, authority: Authority) -> int:
    for path in (directory / f"{which}.pem", Path(which)):
        if path.is_file():
            certificate = pem.read_certificate(path)
            if not issued_by(certificate, authority.certificate):
                raise LbctlError(f"{show(path)} was not issued by the CA in {show(directory)}")
            if certificate == authority.certificate:
                raise LbctlError(f"{show(path)} is the CA itself; replace it instead")
            return certificate.serial_number
    try:
        return parse_serial(which)
    except ValueError:
        raise LbctlError(
            f"no {show(which)}.pem in {show(directory)}, and neither a file nor a serial in hexadecimal; "
            f"see: lbctl cert list {files.in_shell(directory)}"
        ) from None


def _read(path: Path) -> x509.CertificateRevocationList | None:
    if not files.exists(path):
        return None
    try:
        return x509.load_pem_x509_crl(files.read(path))
    except ValueError:
        raise LbctlError(f"{show(path)} is not a revocation list in PEM; it was not touched") from None


def _write(
    directory: Path, authority: Authority, days: int, serial: int | None, dry_run: bool
) -> RevocationList:
    path = directory / NAME
    before = _read(path)
    if before is not None and not _is_of(before, authority):
        raise LbctlError(f"{show(path)} is not signed by the CA in {show(directory)}; it was not touched")
    start = now()
    ends = min(start + timedelta(days=days), authority.certificate.not_valid_after_utc)
    entries = list(before or ())
    known = [entry.serial_number for entry in entries]
    added = serial is not None and serial not in known
    if serial is not None and added:
        entries.append(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start).build()
        )
        known.append(serial)
    number = _number(before) + 1
    if not dry_run:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(authority.certificate.subject)
            .last_update(start - BACKDATED)
            .next_update(ends)
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(authority.key_identifier(), critical=False)
        )
        for entry in entries:
            builder = builder.add_revoked_certificate(entry)
        content = builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        files.replace(path, content, files.PUBLIC)
    return RevocationList(path, number, ends, tuple(known), serial, added)


def _is_of(found: x509.CertificateRevocationList, authority: Authority) -> bool:
    return found.issuer == authority.certificate.subject and found.is_signature_valid(
        authority.key.public_key()
    )


def _number(found: x509.CertificateRevocationList | None) -> int:
    if found is None:
        return 0
    try:
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0
