"""The certificates of one run: a CA, a server, listed clients and two that must be refused."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LOAD_CLIENTS = 8  # clients that make load: more than one, so that limits and caches see several
LISTED_CLIENTS = 100  # entries of the allow list, the rest of them never connect


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Certificates:
    """Everything on disk that a run presents or verifies.

    Attributes:
        ca: the one CA, PEM.
        server: what every proxy presents.
        server_combined: the same certificate and key in one file, as HAProxy wants it.
        clients: on the allow list.
        stranger: issued by the CA, not on the allow list.
        forger: carries the serial of the first client, issued by a CA nobody trusts.
        serials: the whole allow list, as integers.
        listed: the certificates of the whole allow list, in one file.
        fingerprints: their SHA-256, hexadecimal.
    """

    ca: Path
    server: KeyPair
    server_combined: Path
    clients: tuple[KeyPair, ...]
    stranger: KeyPair
    forger: KeyPair
    serials: tuple[int, ...]
    listed: Path
    fingerprints: tuple[str, ...]


class _Authority:
    """Issues ECDSA P-256 certificates, valid long enough that nobody warns of their end."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(name)
        self.cert = self._builder(self.name, x509.random_serial_number(), self.key, is_ca=True).sign(
            self.key, hashes.SHA256()
        )

    def _builder(
        self, subject: x509.Name, serial: int, key: ec.EllipticCurvePrivateKey, *, is_ca: bool
    ) -> x509.CertificateBuilder:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=60))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        )

    def issue(self, folder: Path, name: str, serial: int, usage: x509.ObjectIdentifier) -> KeyPair:
        """Writes NAME.pem and NAME.key (0600) for a new key into `folder`."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(name), serial, key, is_ca=False).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if usage == ExtendedKeyUsageOID.SERVER_AUTH:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.key")
        pair.cert.write_bytes(_pem(builder.sign(self.key, hashes.SHA256())))
        _write_private(pair.key, _key_pem(key))
        return pair


def make(folder: Path) -> Certificates:
    """Creates all certificates of a run in `folder`."""
    authority, rogue = _Authority("bench CA"), _Authority("rogue CA")
    ca = folder / "ca.pem"
    ca.write_bytes(_pem(authority.cert))
    serials = tuple(x509.random_serial_number() for _ in range(LISTED_CLIENTS))
    client_auth = ExtendedKeyUsageOID.CLIENT_AUTH
    server = authority.issue(folder, "server", x509.random_serial_number(), ExtendedKeyUsageOID.SERVER_AUTH)
    combined = folder / "server-combined.pem"
    _write_private(combined, server.cert.read_bytes() + server.key.read_bytes())
    clients = tuple(
        authority.issue(folder, f"client-{index}", serial, client_auth)
        for index, serial in enumerate(serials)
    )
    listed = folder / "listed.pem"
    listed.write_bytes(b"".join(client.cert.read_bytes() for client in clients))
    return Certificates(
        ca=ca,
        server=server,
        server_combined=combined,
        clients=clients[:LOAD_CLIENTS],
        stranger=authority.issue(folder, "stranger", x509.random_serial_number(), client_auth),
        forger=rogue.issue(folder, "forger", serials[0], client_auth),
        serials=serials,
        listed=listed,
        fingerprints=tuple(_fingerprint(client.cert) for client in clients),
    )


def _fingerprint(cert: Path) -> str:
    return x509.load_pem_x509_certificate(cert.read_bytes()).fingerprint(hashes.SHA256()).hex()


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
