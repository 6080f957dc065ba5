"""What a certificate says, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from lbctl.certificates import names, pem
from lbctl.certificates.authority import is_ca, now

_PURPOSES = {
    ExtendedKeyUsageOID.CLIENT_AUTH: "client",
    ExtendedKeyUsageOID.SERVER_AUTH: "server",
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE: "any",
}


@dataclass(frozen=True)
class Description:
    """One certificate.

    Names are text that whoever asked for the certificate chose: escape them wherever they are shown.

    Attributes:
        file: where it was read.
        subject: whom it names (RFC 4514).
        issuer: who signed it, by its own account.
        serial: a positive integer.
        names: a server's hosts and addresses.
        not_before: valid from here
        not_after: to here.
        days_left: whole days until then, below 0 afterwards.
        purposes: "client", "server", "CA", "any", or the dotted number of another one.
        key_type: such as "ECDSA P-256".
        fingerprint: SHA-256, "3F:9C:...".
    """

    file: Path
    subject: str
    issuer: str
    serial: int
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    days_left: int
    purposes: tuple[str, ...]
    key_type: str
    fingerprint: str

    @property
    def serial_hex(self) -> str:
        """The serial as the logs write it."""
        digits = f"{self.serial:X}"
        return digits if len(digits) % 2 == 0 else f"0{digits}"

    @property
    def state(self) -> str:
        """"valid", "expired" or "not yet valid"."""
        moment = now()
        if moment > self.not_after:
            return "expired"
        return "valid" if moment >= self.not_before else "not yet valid"

    def as_json(self) -> dict[str, Any]:
        """The description for programs."""
        return {
            "file": str(self.file),
            "subject": self.subject,
            "issuer": self.issuer,
            "serial": self.serial_hex,
            "names": list(self.names),
            "not_before": f"{self.not_before:%Y-%m-%dT%H:%M:%SZ}",
            "not_after": f"{self.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "days_left": self.days_left,
            "state": self.state,
            "purposes": list(self.purposes),
            "key_type": self.key_type,
            "fingerprint": self.fingerprint,
        }


def describe(path: Path) -> Description:
    """The first certificate of a file.

    Raises:
        LbctlError: there is none.
    """
    return describe_certificate(pem.read_certificate(path), path)


def describe_certificate(certificate: x509.Certificate, path: Path) -> Description:
    """A certificate that was read from `path`."""
    return Description(
        file=path,
        subject=_distinguished(certificate, "subject"),
        issuer=_distinguished(certificate, "issuer"),
        serial=certificate.serial_number,
        names=_names(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        days_left=(certificate.not_valid_after_utc - now()).days,
        purposes=_purposes(certificate),
        key_type=_key_type(certificate),
        fingerprint=pem.fingerprint(certificate),
    )


def _distinguished(certificate: x509.Certificate, which: str) -> str:
    try:
        name: x509.Name = getattr(certificate, which)
    except ValueError:
        return "(unreadable)"
    return name.rfc4514_string()


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(names.spell(name) for name in found)


def _purposes(certificate: x509.Certificate) -> tuple[str, ...]:
    """From extendedKeyUsage; a CA is one whatever else it may do."""
    ca = ("CA",) if is_ca(certificate) else ()
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return ca or ("any",)
    except ValueError:
        return ca
    return (*ca, *(_PURPOSES.get(oid, oid.dotted_string) for oid in usage))


def _key_type(certificate: x509.Certificate) -> str:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    match key:
        case ec.EllipticCurvePublicKey():
            curve = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
            return f"ECDSA {curve.get(key.curve.name, key.curve.name)}"
        case rsa.RSAPublicKey():
            return f"RSA {key.key_size}"
        case dsa.DSAPublicKey():
            return f"DSA {key.key_size}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
    return type(key).__name__
