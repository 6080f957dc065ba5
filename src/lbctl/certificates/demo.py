"""The certificates of the demo: one CA, one server, alice who is let in and mallory who is not.

Random on every machine, valid for a week. Missing files are made one by one, existing ones reused,
those about to end issued again. A file that is not the demo's is an error and stays as it is.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from lbctl.certificates import files, pem
from lbctl.certificates.authority import Authority, Purpose, common_name, is_ca, issued_by, now
from lbctl.certificates.files import show
from lbctl.certificates.pem import PrivateKey
from lbctl.config.values import shorten
from lbctl.errors import LbctlError

CA_NAME = "lb demo CA"
DAYS = 7
RENEW_BEFORE = timedelta(hours=1)  # a demo that starts should not end at once
LOOPBACK_NAMES: tuple[x509.GeneralName, ...] = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    x509.IPAddress(ipaddress.ip_address("::1")),
)


@dataclass(frozen=True)
class DemoClient:
    """A client of the demo.

    Attributes:
        name: of the client, and the common name of its certificate.
        serial: of its certificate.
        cert: the certificate, PEM.
        key: its private key, PEM.
    """

    name: str
    serial: int
    cert: Path
    key: Path


@dataclass(frozen=True)
class DemoCertificates:
    """The demo's folder, complete and usable.

    Attributes:
        directory: where the files are.
        created: the CA certificate is new.
        ca_fingerprint: SHA-256 of the CA certificate, "3F:9C:...".
        not_after: when the first of them ends.
        alice: may use the demo's application.
        mallory: is known and may use nothing.
    """

    directory: Path
    created: bool
    ca_fingerprint: str
    not_after: datetime
    alice: DemoClient
    mallory: DemoClient

    @property
    def ca(self) -> Path:
        """The CA certificate."""
        return self.directory / "ca.pem"

    @property
    def server_cert(self) -> Path:
        """The server's certificate."""
        return self.directory / "server.pem"

    @property
    def server_key(self) -> Path:
        """The server's private key."""
        return self.directory / "server.key"


def demo_certificates(directory: Path) -> DemoCertificates:
    """Make or reuse the demo's eight files. Safe to call from several processes at once.

    Raises:
        LbctlError: a file is not the demo's, or cannot be read or written. Nothing was overwritten.
    """
    files.make_directory(directory)
    with files.locked(directory):
        ca = _Ca(directory)
        server = ca.leaf("server", "localhost", Purpose.SERVER, LOOPBACK_NAMES)
        alice = ca.leaf("alice", "alice", Purpose.CLIENT)
        mallory = ca.leaf("mallory", "mallory", Purpose.CLIENT)
    everything = (ca.certificate, server, alice, mallory)
    return DemoCertificates(
        directory=directory,
        created=ca.created,
        ca_fingerprint=pem.fingerprint(ca.certificate),
        not_after=min(certificate.not_valid_after_utc for certificate in everything),
        alice=DemoClient("alice", alice.serial_number, directory / "alice.pem", directory / "alice.key"),
        mallory=DemoClient(
            "mallory", mallory.serial_number, directory / "mallory.pem", directory / "mallory.key"
        ),
    )


def is_demo_ca(certificate: x509.Certificate) -> bool:
    """Whether this is the CA certificate of some demo."""
    return (
        common_name(certificate.subject) == CA_NAME
        and is_ca(certificate)
        and issued_by(certificate, certificate)
    )


class _Ca:
    """The demo's CA in its folder; the caller holds the folder's lock."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._cert_path, self._key_path = directory / "ca.pem", directory / "ca.key"
        present = pem.read_certificate(self._cert_path) if files.exists(self._cert_path) else None
        if present is not None and not is_demo_ca(present):
            raise LbctlError(
                f"{show(self._cert_path)} is not the demo's CA but "
                f"'{shorten(common_name(present.subject))}'; run the demo in another folder"
            )
        if present is None:
            self._refuse_orphans()
        key = self._key(present)
        self.created = present is None or _must_be_renewed(present)
        if present is not None and not self.created:
            self.certificate = present
            self._authority = Authority(present, key) if key is not None else None
            return
        if key is None:
            raise self._key_missing()
        self._authority = Authority.create(CA_NAME, key, DAYS)
        self.certificate = self._authority.certificate
        write = files.create if present is None else files.replace
        write(self._cert_path, pem.encode_certificate(self.certificate), files.PUBLIC)

    def leaf(
        self,
        stem: str,
        name: str,
        purpose: Purpose,
        alternative_names: tuple[x509.GeneralName, ...] = (),
    ) -> x509.Certificate:
        """The certificate in `stem`.pem, made or made again where that is needed."""
        cert_path, key_path = self._directory / f"{stem}.pem", self._directory / f"{stem}.key"
        present = pem.read_certificate(cert_path) if files.exists(cert_path) else None
        if present is not None and not issued_by(present, self.certificate):
            raise LbctlError(_not_ours(cert_path))
        key = pem.read_key(key_path) if files.exists(key_path) else None
        if present is not None and key is not None:
            if not pem.belong_together(present, key):
                raise LbctlError(_mismatch(key_path, cert_path))
            if not _must_be_renewed(present):
                return present
        if self._authority is None:
            raise self._key_missing()
        if key is None:
            if present is not None:
                cert_path.unlink()  # ours, and no use without its key; a crash from here on leaves no misfit
                present = None
            key = pem.new_key()
            files.create(key_path, pem.encode_key(key), files.PRIVATE)
        certificate = self._authority.issue(name, key, purpose, DAYS, alternative_names)
        write = files.create if present is None else files.replace
        write(cert_path, pem.encode_certificate(certificate), files.PUBLIC)
        return certificate

    def _key(self, certificate: x509.Certificate | None) -> PrivateKey | None:
        """The CA's key; made when there is no CA yet, None when it was taken away."""
        if files.exists(self._key_path):
            key = pem.read_key(self._key_path)
            if certificate is not None and not pem.belong_together(certificate, key):
                raise LbctlError(_mismatch(self._key_path, self._cert_path))
            return key
        if certificate is not None:
            return None
        key = pem.new_key()
        files.create(self._key_path, pem.encode_key(key), files.PRIVATE)
        return key

    def _refuse_orphans(self) -> None:
        """Certificates without their CA's: those of a lost demo, or of something else."""
        for stem in ("server", "alice", "mallory"):
            path = self._directory / f"{stem}.pem"
            if files.exists(path) and not files.exists(self._key_path):
                raise LbctlError(_not_ours(path))

    def _key_missing(self) -> LbctlError:
        return LbctlError(
            f"{show(self._key_path)} is missing, so no demo certificate can be issued; put it back, "
            f"or move {show(self._directory)} away for a new demo CA"
        )


def _must_be_renewed(certificate: x509.Certificate) -> bool:
    """It ends soon, or begins in the future: somebody has set the clock."""
    moment = now()
    ends_soon = certificate.not_valid_after_utc - moment < RENEW_BEFORE
    return ends_soon or certificate.not_valid_before_utc > moment


def _not_ours(path: Path) -> str:
    return (
        f"{show(path)} was not issued by the demo's CA in this folder; "
        "move it away, or run the demo in another folder"
    )


def _mismatch(key: Path, cert: Path) -> str:
    return f"{show(key)} is not the key of {show(cert)}; move both away, or run the demo in another folder"
