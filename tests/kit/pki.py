"""Certificates for tests, made with `cryptography` alone.

Good ones, and one for each way in which a client certificate can be wrong.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import itertools
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lbcore

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
DAY = dt.timedelta(days=1)
CLIENT = (ExtendedKeyUsageOID.CLIENT_AUTH,)
SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)


@dataclass(frozen=True)
class Identity:
    """A certificate and its key as PEM files; `cert` holds what is sent, the leaf first."""

    name: str
    cert: Path
    key: Path
    serial: int
    der: bytes


class Authority:
    """A CA, a root or one below another; `ends`: from now."""

    def __init__(
        self, folder: Path, name: str, parent: Authority | None = None, *, ends: dt.timedelta = 30 * DAY
    ) -> None:
        self.folder = folder
        self.name = name
        self.parent = parent
        self.private_key = ec.generate_private_key(ec.SECP256R1())
        signer = parent or self
        now = dt.datetime.now(dt.UTC)
        key_usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(_subject(signer.name))
            .public_key(self.private_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(_subject_key(self.private_key), critical=False)
            .add_extension(_authority_key(signer.private_key), critical=False)
            .sign(signer.private_key, hashes.SHA256())
        )
        self.cert = folder / f"{name}.pem"
        self.key = folder / f"{name}.key"
        self.cert.write_bytes(_pem(self.certificate))
        self.key.write_bytes(_key_pem(self.private_key))

    def issue(
        self,
        name: str,
        *,
        serial: int | None = None,
        usages: Sequence[x509.ObjectIdentifier] = CLIENT,
        starts: dt.timedelta = -DAY,
        ends: dt.timedelta = 7 * DAY,
        key: PrivateKey | None = None,
        addresses: Sequence[str] = (),
        names_issuer_key: bool = True,
        organizations: Sequence[str] = (),
    ) -> Identity:
        """A leaf with its key on disk; the chain up to, and without, the root is in the same file.

        Args:
            name: the common name, and with the serial number the files' name.
            serial: default: a random one.
            usages: extended key usages; none: no such extension.
            starts, ends: validity, from now.
            key: default: a new ECDSA P-256 key.
            addresses: subject alternative names, host names, IP addresses or URNs.
            names_issuer_key: has an authority key identifier; else only a name says whose it is.
            organizations: more attributes of the subject.
        """
        private_key = key or ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_subject(name, organizations))
            .issuer_name(_subject(self.name))
            .public_key(private_key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(now + starts)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_subject_key(private_key), critical=False)
        )
        if names_issuer_key:
            builder = builder.add_extension(_authority_key(self.private_key), critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if addresses:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_alternative(address) for address in addresses]), critical=False
            )
        certificate = builder.sign(self.private_key, hashes.SHA256())
        return _write(self.folder, name, certificate, private_key, self._intermediates())

    def crl(
        self,
        *serials: int,
        starts: dt.timedelta = -DAY,
        ends: dt.timedelta = 7 * DAY,
        extension: x509.ExtensionType | None = None,
    ) -> bytes:
        """A revocation list, PEM.

        Args:
            serials: who is on it.
            starts, ends: its dates, from now.
            extension: a critical one that it has besides.
        """
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(_subject(self.name))
            .last_update(now + starts)
            .next_update(now + ends)
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.private_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def _intermediates(self) -> bytes:
        return b"" if self.parent is None else _pem(self.certificate) + self.parent._intermediates()


def _subject_key(key: PrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _authority_key(key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    """Strict verifiers, Python's from 3.13 on among them, ask for it."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


class Pki:
    """One CA, a server, and clients good and bad; made once per session.

    Attributes:
        ca: the configured CA.
        rogue: another CA that calls itself the same.
        sub_ca: a CA below the configured one.
        server: the balancer's certificate, for localhost and 127.0.0.1.
        alice, bob: honest clients.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        self.ca = Authority(folder, "test-ca")
        (folder / "rogue").mkdir()
        self.rogue = Authority(folder / "rogue", "test-ca")
        self.sub_ca = Authority(folder, "sub-ca", self.ca)
        self.server = self.ca.issue("server", usages=SERVER, addresses=("localhost", "127.0.0.1", "::1"))
        self.alice = self.ca.issue("alice", serial=0x1001)
        self.bob = self.ca.issue("bob", serial=0x1002)

    def client(self, serial: int | None = None) -> Identity:
        """One more honest client."""
        return self.ca.issue(f"client-{next(self._numbers)}", serial=serial)

    def self_signed(self, name: str, serial: int) -> Identity:
        """Issued by itself; nobody else says who it is."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(_subject(name))
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.ExtendedKeyUsage(CLIENT), critical=False)
            .sign(key, hashes.SHA256())
        )
        return _write(self.folder, f"self-signed-{name}", certificate, key, b"")

    def rsa_client(self, bits: int) -> Identity:
        """A client with an RSA key."""
        key = rsa.generate_private_key(65537, bits)
        return self.ca.issue(f"rsa-{bits}-{next(self._numbers)}", key=key)

    def ed25519_client(self) -> Identity:
        """A client with an Ed25519 key."""
        return self.ca.issue(f"ed25519-{next(self._numbers)}", key=ed25519.Ed25519PrivateKey.generate())

    def openssl_client(
        self,
        name: str,
        extensions: str | None,
        openssl: str = "openssl",
        key_options: Sequence[str] = ("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    ) -> Identity:
        """A client certificate made the way the openssl manual does it: `req`, then `x509 -req`.

        Args:
            name: the common name.
            extensions: what goes into ``-extfile``; None: no such option.
            openssl: the program.
            key_options: what comes behind ``-newkey``.
        """
        cert, key, request = (self.folder / f"{name}.{end}" for end in ("pem", "key", "csr"))
        _run(openssl, "req", "-new", "-newkey", *key_options, "-nodes", "-subj", f"/CN={name}",
             "-keyout", str(key), "-out", str(request))  # fmt: skip
        command = [openssl, "x509", "-req", "-in", str(request), "-CA", str(self.ca.cert), "-CAkey",
                   str(self.ca.key), "-CAcreateserial", "-days", "7", "-out", str(cert)]  # fmt: skip
        if extensions is not None:
            extfile = self.folder / f"{name}.ext"
            extfile.write_text(extensions)
            command += ["-extfile", str(extfile)]
        _run(*command)
        certificate = x509.load_pem_x509_certificate(cert.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        return Identity(name, cert, key, certificate.serial_number, der)

    def server_tls(self, *, alpn: Sequence[str] = ()) -> lbcore.ServerTLS:
        """The server side of the balancer under test."""
        from lbcore import ServerTLS

        return ServerTLS(cert=self.server.cert, key=self.server.key, client_ca=self.ca.cert, alpn=alpn)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def _subject(name: str, organizations: Sequence[str] = ()) -> x509.Name:
    more = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, text) for text in organizations]
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name), *more])


def _alternative(address: str) -> x509.GeneralName:
    if address.startswith("urn:"):
        return x509.UniformResourceIdentifier(address)
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(
    folder: Path, name: str, certificate: x509.Certificate, key: PrivateKey, intermediates: bytes
) -> Identity:
    # Two certificates may have one name, never one serial number.
    stem = f"{name}-{certificate.serial_number:x}"
    cert_path, key_path = folder / f"{stem}.pem", folder / f"{stem}.key"
    cert_path.write_bytes(_pem(certificate) + intermediates)
    key_path.write_bytes(_key_pem(key))
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Identity(name, cert_path, key_path, certificate.serial_number, der)
