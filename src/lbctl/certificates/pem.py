"""Certificates and private keys as PEM files."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from lbctl.certificates import files
from lbctl.errors import LbctlError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a file, in its order; at least one.

    Raises:
        LbctlError: the file cannot be read or holds none.
    """
    content = files.read(path)
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise LbctlError(f"{files.show(path)} holds no certificate in PEM") from None


def read_certificate(path: Path) -> x509.Certificate:
    """The first certificate of a file.

    Raises:
        LbctlError: the file cannot be read or holds none.
    """
    return read_certificates(path)[0]


def read_key(path: Path) -> PrivateKey:
    """A private key that no other user can read.

    Raises:
        LbctlError: it cannot be read, is encrypted, open to others, or of a kind not used here.
    """
    content = files.read(path)
    files.check_private(path)
    try:
        key = load_pem_private_key(content, None)
    except TypeError:  # how the library says that a key wants a password
        raise LbctlError(f"{files.show(path)} is encrypted; write it without a password, mode 0600") from None
    except (ValueError, UnsupportedAlgorithm):
        raise LbctlError(f"{files.show(path)} holds no usable private key in PEM") from None
    if not isinstance(key, PrivateKey):
        raise LbctlError(f"{files.show(path)}: expected an ECDSA or RSA key")
    return key


def new_key() -> PrivateKey:
    """A fresh ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def encode_certificate(certificate: x509.Certificate) -> bytes:
    """A certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def encode_key(key: PrivateKey) -> bytes:
    """A private key as unencrypted PEM (PKCS #8)."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def belong_together(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether the key is that of the certificate."""
    return _public(certificate.public_key()) == _public(key.public_key())


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate, as `openssl x509 -fingerprint -sha256` writes it: "3F:9C:..."."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _public(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
