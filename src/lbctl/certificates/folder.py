"""A folder of certificates: `ca.pem`, `ca.key`, and a pair of files for each name issued."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from lbctl.certificates import claims, demo, files, names, pem
from lbctl.certificates.authority import Authority, Purpose, is_ca, issued_by
from lbctl.certificates.describe import Description, describe_certificate
from lbctl.certificates.files import show
from lbctl.errors import LbctlError

CA_NAME = "lb CA"
CA_DAYS = 3650
LEAF_DAYS = 365


@dataclass(frozen=True)
class Issued:
    """A new certificate and its key.

    Attributes:
        name: the files' stem.
        purpose: client or server.
        cert: the certificate, PEM.
        key: its private key, PEM, mode 0600.
        description: what the certificate says.
    """

    name: str
    purpose: Purpose
    cert: Path
    key: Path
    description: Description


@dataclass(frozen=True)
class Listed:
    """One certificate of a folder.

    Attributes:
        name: the file's stem.
        description: what it says.
        issued_here: whether the folder's CA signed it.
        has_key: whether its key lies next to it.
    """

    name: str
    description: Description
    issued_here: bool
    has_key: bool


def has_ca(directory: Path) -> bool:
    """Whether the folder holds a CA certificate, or something with its name."""
    return files.exists(directory / "ca.pem")


def create_ca(directory: Path, name: str = CA_NAME, days: int = CA_DAYS) -> Description:
    """Make a CA in a folder: `ca.pem` and `ca.key`.

    Raises:
        LbctlError: one of the files is there already, or cannot be written.
    """
    if names.check_common_name(name) == demo.CA_NAME:
        raise LbctlError(f"'{name}' is the name of the demo's CA; choose another")
    cert_path, key_path = directory / "ca.pem", directory / "ca.key"
    files.make_directory(directory)
    with files.locked(directory):
        _must_be_free(cert_path, key_path)
        authority = Authority.create(name, pem.new_key(), days)
        _create_pair(cert_path, authority.certificate, key_path, authority.key)
    return describe_certificate(authority.certificate, cert_path)


def read_ca(directory: Path) -> Authority:
    """The CA of a folder.

    Raises:
        LbctlError: there is none, or its certificate and key are not a pair.
    """
    cert_path, key_path = directory / "ca.pem", directory / "ca.key"
    if not files.exists(cert_path):
        make = f"lbctl cert init {files.in_shell(directory)}"
        raise LbctlError(f"no CA in {show(directory)}; make one with: {make}")
    certificate = pem.read_certificate(cert_path)
    if not is_ca(certificate):
        raise LbctlError(f"{show(cert_path)} is not a CA certificate (basicConstraints CA:TRUE)")
    if not files.exists(key_path):
        raise LbctlError(f"{show(key_path)} is not here; certificates are issued where the CA's key is kept")
    key = pem.read_key(key_path)
    if not pem.belong_together(certificate, key):
        raise LbctlError(f"{show(key_path)} is not the key of {show(cert_path)}")
    return Authority(certificate, key)


def issue(
    directory: Path,
    name: str,
    purpose: Purpose,
    *,
    days: int | None = None,
    alternative_names: Sequence[str] = (),
    apps: Mapping[str, str | None] | None = None,
) -> Issued:
    """Make a key and a certificate: `NAME.key` and `NAME.pem`.

    Args:
        directory: the folder with the CA.
        name: the files' stem and the certificate's common name.
        purpose: client or server.
        days: how long it is valid; by default a year, or as long as the CA.
        alternative_names: a server's hosts and addresses; by default those of the loopback.
        apps: what a client's certificate claims that it may use, each with a class of limits or None
            (`lbctl.certificates.claims`); by default it claims nothing.

    Raises:
        LbctlError: no usable CA, a bad name, a file is there already, or it would outlive the CA.
    """
    names.check_stem(name)
    hosts: tuple[x509.GeneralName, ...] = tuple(names.alternative_name(text) for text in alternative_names)
    if purpose is Purpose.SERVER and not hosts:
        hosts = demo.LOOPBACK_NAMES
    if apps:
        uris = [claims.client_claim(name), *(claims.app_claim(*one) for one in apps.items())]
        hosts = (*hosts, *map(x509.UniformResourceIdentifier, uris))
    authority = read_ca(directory)
    left = authority.days_left()
    if days is not None and days > max(left, 0):
        raise LbctlError(f"the CA ends in {left} days; a certificate cannot outlive it (--days {days})")
    cert_path, key_path = directory / f"{name}.pem", directory / f"{name}.key"
    with files.locked(directory):
        _must_be_free(cert_path, key_path)
        key = pem.new_key()
        certificate = authority.issue(name, key, purpose, days or LEAF_DAYS, hosts)
        _create_pair(cert_path, certificate, key_path, key)
    return Issued(name, purpose, cert_path, key_path, describe_certificate(certificate, cert_path))


def list_certificates(directory: Path) -> list[Listed]:
    """The certificates of a folder, the CA first, then by name; files that are none are left out.

    Raises:
        LbctlError: the folder cannot be read.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if path.suffix == ".pem" and path.is_file())
    except OSError as error:
        raise LbctlError(f"cannot read the folder {show(directory)}: {error.strerror}") from None
    found = []
    for path in paths:
        try:
            found.append((path, pem.read_certificate(path)))
        except LbctlError:
            continue  # a key, or a file of somebody else
    ca = next((certificate for path, certificate in found if path.name == "ca.pem"), None)
    listed = [
        Listed(
            name=path.stem,
            description=describe_certificate(certificate, path),
            issued_here=ca is not None and issued_by(certificate, ca),
            has_key=path.with_suffix(".key").is_file(),
        )
        for path, certificate in found
    ]
    return sorted(listed, key=lambda one: (one.name != "ca", one.name))


def _must_be_free(*paths: Path) -> None:
    for path in paths:
        if files.exists(path):
            raise LbctlError(f"{show(path)} exists already; it was not touched")


def _create_pair(cert_path: Path, certificate: x509.Certificate, key_path: Path, key: pem.PrivateKey) -> None:
    """The key first: a certificate that is there can always be used."""
    files.create(key_path, pem.encode_key(key), files.PRIVATE)
    try:
        files.create(cert_path, pem.encode_certificate(certificate), files.PUBLIC)
    except BaseException:
        key_path.unlink(missing_ok=True)  # made a moment ago, by us
        raise
