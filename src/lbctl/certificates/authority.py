"""A small certificate authority: one self-signed CA that issues clients and servers directly."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbctl.certificates.pem import PrivateKey, belong_together
from lbctl.config.values import shorten
from lbctl.errors import LbctlError

BACKDATED = timedelta(minutes=5)  # clocks of clients and servers differ
_SERIAL_MIN = 1 << 60  # so that every serial has 16 hexadecimal digits
_SERIAL_END = 1 << 64


class Purpose(Enum):
    """What a certificate is for; the value is its extendedKeyUsage."""

    CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
    SERVER = ExtendedKeyUsageOID.SERVER_AUTH


def random_serial() -> int:
    """64 bits, positive, always 16 hexadecimal digits."""
    return _SERIAL_MIN + secrets.randbelow(_SERIAL_END - _SERIAL_MIN)


def now() -> datetime:
    """The present, in whole seconds as certificates count."""
    return datetime.now(UTC).replace(microsecond=0)


def common_name(name: x509.Name) -> str:
    """The common name, or the whole name where there is none. Whoever asked for the certificate chose it."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


@dataclass(frozen=True)
class Authority:
    """A CA at work.

    Attributes:
        certificate: of the CA.
        key: its private key.
    """

    certificate: x509.Certificate
    key: PrivateKey

    def __post_init__(self) -> None:
        if not belong_together(self.certificate, self.key):
            raise ValueError("the key is not that of the CA certificate")

    @classmethod
    def create(cls, name: str, key: PrivateKey, days: int) -> Authority:
        """Sign a CA certificate with its own key."""
        start = now()
        subject = _name(name)
        public = key.public_key()
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(public)
            .serial_number(random_serial())
            .not_valid_before(start - BACKDATED)
            .not_valid_after(start + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(ca=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(certificate, key)

    def days_left(self) -> int:
        """Whole days until the CA certificate ends; below 0 when it has."""
        return (self.certificate.not_valid_after_utc - now()).days

    def issue(
        self,
        name: str,
        key: PrivateKey,
        purpose: Purpose,
        days: int,
        alternative_names: Sequence[x509.GeneralName] = (),
    ) -> x509.Certificate:
        """Sign a certificate for a client or a server. It never outlives the CA.

        Args:
            name: the common name.
            key: whose public half is certified.
            purpose: client or server.
            days: valid for so long, or until the CA ends.
            alternative_names: hosts and addresses of a server.

        Raises:
            LbctlError: the CA certificate has expired.
        """
        start = now()
        ca_ends = self.certificate.not_valid_after_utc
        if start >= ca_ends:
            raise LbctlError(
                f"the CA {shorten(common_name(self.certificate.subject))!r} "
                f"expired on {ca_ends:%Y-%m-%d %H:%M} UTC; make a new one in another folder"
            )
        public = key.public_key()
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(self.certificate.subject)
            .public_key(public)
            .serial_number(random_serial())
            .not_valid_before(max(start - BACKDATED, self.certificate.not_valid_before_utc))
            .not_valid_after(min(start + timedelta(days=days), ca_ends))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose.value]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(self.key_identifier(), critical=False)
        )
        if alternative_names:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative_names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this CA signed the certificate."""
        return issued_by(certificate, self.certificate)

    def key_identifier(self) -> x509.AuthorityKeyIdentifier:
        """How what it signs names its key."""
        try:
            own = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the key of `issuer` signed the certificate, and it says so."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # other names, another key, a signature that is none: each has its own exception
        return False
    return True


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the certificate may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
