"""Certificates that are as long in every run: the same keys, names, serials and dates.

Only ECDSA's signatures differ from run to run, and those are made again until they have their usual length.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT_SERIAL = 0x4F3A910C5B6D7E8F901A2B3C4D5E6F7081
SIGNATURE_BYTES = 71  # of a P-256 signature in DER, most often
_FROM = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_UNTIL = dt.datetime(2049, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, PEM."""

    cert: bytes
    key: bytes


@dataclass(frozen=True)
class Identities:
    """Of one CA: itself, the balancer and the one client."""

    ca: bytes
    server: Identity
    client: Identity


def make() -> Identities:
    """The same ones again."""
    ca_key = ec.derive_private_key(1001, ec.SECP256R1())
    ca = _signed("instructions CA", 1, ca_key, ca_key, None)
    server_key = ec.derive_private_key(1002, ec.SECP256R1())
    client_key = ec.derive_private_key(1003, ec.SECP256R1())
    server = _signed("localhost", 2, server_key, ca_key, ExtendedKeyUsageOID.SERVER_AUTH)
    client = _signed("client", CLIENT_SERIAL, client_key, ca_key, ExtendedKeyUsageOID.CLIENT_AUTH)
    return Identities(_pem(ca), _identity(server, server_key), _identity(client, client_key))


def _signed(
    name: str,
    serial: int,
    key: ec.EllipticCurvePrivateKey,
    ca_key: ec.EllipticCurvePrivateKey,
    usage: x509.ObjectIdentifier | None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "instructions CA")]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL)
        .add_extension(x509.BasicConstraints(ca=usage is None, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if usage == ExtendedKeyUsageOID.SERVER_AUTH:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        )
    while True:
        made = builder.sign(ca_key, hashes.SHA256())
        if len(made.signature) == SIGNATURE_BYTES:
            return made


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _identity(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(_pem(cert), pem)
