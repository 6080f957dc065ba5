"""The small CA: what it issues, what it refuses, and what a certificate is said to hold."""

from __future__ import annotations

import errno
import os
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.x509.oid import NameOID
from kit.commands import contents, mode, openssl

from lbctl.certificates import (
    Purpose,
    authority,
    create_ca,
    describe,
    files,
    issue,
    list_certificates,
    names,
    pem,
    read_ca,
    starter,
)
from lbctl.certificates.authority import Authority
from lbctl.errors import LbctlError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a CA."""
    create_ca(tmp_path / "pki")
    return tmp_path / "pki"


def foreign_ca(folder: Path, key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey) -> None:
    """A CA made by other tools: another kind of key, no subject key identifier."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "foreign")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    folder.mkdir()
    (folder / "ca.pem").write_bytes(pem.encode_certificate(certificate))
    files.create(folder / "ca.key", pem.encode_key(key), 0o600)  # type: ignore[arg-type]  # any kind


# ---- the CA --------------------------------------------------------------------------------------


def test_the_ca_certificate_may_sign_leaves_and_nothing_else(folder: Path) -> None:
    text = openssl("x509", "-noout", "-text", "-in", folder / "ca.pem")
    assert "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0" in text
    assert "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign" in text
    assert "X509v3 Subject Key Identifier" in text
    assert "NIST CURVE: P-256" in text
    assert mode(folder) == 0o700
    assert mode(folder / "ca.key") == 0o600
    assert mode(folder / "ca.pem") == 0o644


def test_a_sub_ca_below_it_is_worth_nothing(folder: Path, tmp_path: Path) -> None:
    """pathlen:0 holds even if somebody signs a CA with its key."""
    root = read_ca(folder)
    key = pem.new_key()
    sub = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sub")]))
        .issuer_name(root.certificate.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(authority.now())
        .not_valid_after(authority.now() + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root.key, hashes.SHA256())
    )
    leaf = Authority(sub, key).issue("x", pem.new_key(), Purpose.CLIENT, 1)
    (tmp_path / "sub.pem").write_bytes(pem.encode_certificate(sub))
    (tmp_path / "leaf.pem").write_bytes(pem.encode_certificate(leaf))
    with pytest.raises(AssertionError, match="path length constraint exceeded"):
        openssl("verify", "-CAfile", folder / "ca.pem", "-untrusted", tmp_path / "sub.pem",
                tmp_path / "leaf.pem")  # fmt: skip


@pytest.mark.parametrize("present", ["ca.pem", "ca.key"])
def test_a_ca_is_never_replaced(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("ours")
    with pytest.raises(LbctlError, match=rf"{present} exists already; it was not touched"):
        create_ca(tmp_path)
    assert contents(tmp_path) == {present: b"ours"}


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "two\nlines", "right\u202eto left"])
def test_names_no_ca_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(LbctlError, match="1 to 64 printable characters"):
        create_ca(tmp_path / "pki", name)
    assert not (tmp_path / "pki").exists()


def test_the_demo_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(LbctlError, match="the name of the demo's CA"):
        create_ca(tmp_path, "lb demo CA")


def test_serials_have_sixteen_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority.secrets, "randbelow", lambda end: 0)
    assert f"{authority.random_serial():X}" == "1" + "0" * 15
    monkeypatch.setattr(authority.secrets, "randbelow", lambda end: end - 1)
    assert f"{authority.random_serial():X}" == "F" * 16


# ---- issuing -------------------------------------------------------------------------------------


def test_a_client(folder: Path) -> None:
    issued = issue(folder, "billing-api", Purpose.CLIENT)
    assert mode(issued.key) == 0o600
    openssl("verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", folder / "ca.pem", issued.cert)
    purpose = openssl("x509", "-noout", "-purpose", "-in", issued.cert)
    assert "SSL client : Yes" in purpose
    assert "SSL server : No" in purpose
    text = openssl("x509", "-noout", "-text", "-in", issued.cert)
    assert "Subject: CN = billing-api" in text
    assert "CA:FALSE" in text
    assert "X509v3 Key Usage: critical\n                Digital Signature\n" in text
    assert "Alternative Name" not in text
    own = openssl("x509", "-noout", "-ext", "authorityKeyIdentifier", "-in", issued.cert)
    ca = openssl("x509", "-noout", "-ext", "subjectKeyIdentifier", "-in", folder / "ca.pem")
    assert own.split()[-1] == ca.split()[-1]
    assert issued.description.days_left in (364, 365)


def test_a_server_with_names(folder: Path) -> None:
    hosts = ("web.internal", "*.site.lan", "10.0.0.1", "::1")
    issued = issue(folder, "web", Purpose.SERVER, alternative_names=hosts)
    openssl("verify", "-purpose", "sslserver", "-verify_hostname", "a.site.lan", "-CAfile", folder / "ca.pem",
            issued.cert)  # fmt: skip
    openssl("verify", "-verify_ip", "10.0.0.1", "-CAfile", folder / "ca.pem", issued.cert)
    assert issued.description.names == hosts
    assert issued.description.purposes == ("server",)


def test_a_server_without_names_is_for_the_loopback(folder: Path) -> None:
    issued = issue(folder, "web", Purpose.SERVER)
    assert issued.description.names == ("localhost", "127.0.0.1", "::1")


def test_the_pair_loads_as_one(folder: Path) -> None:
    issued = issue(folder, "alice", Purpose.CLIENT)
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(issued.cert, issued.key)


def test_nothing_outlives_the_ca(tmp_path: Path) -> None:
    ends = create_ca(tmp_path, days=30).not_after
    assert issue(tmp_path, "default", Purpose.CLIENT).description.not_after == ends
    with pytest.raises(LbctlError, match=r"a certificate cannot outlive it \(--days 31\)"):
        issue(tmp_path, "longer", Purpose.CLIENT, days=31)
    assert not (tmp_path / "longer.key").exists()


def test_an_expired_ca_issues_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(authority, "now", lambda: datetime.now(UTC) - timedelta(days=9))
        create_ca(tmp_path, days=8)
    before = contents(tmp_path)
    with pytest.raises(LbctlError, match="the CA 'lb CA' expired on"):
        issue(tmp_path, "alice", Purpose.CLIENT)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("present", ["alice.pem", "alice.key"])
def test_files_that_are_there_are_never_replaced(folder: Path, present: str) -> None:
    (folder / present).write_text("ours")
    before = contents(folder)
    with pytest.raises(LbctlError, match=rf"{present} exists already; it was not touched"):
        issue(folder, "alice", Purpose.CLIENT)
    assert contents(folder) == before


@pytest.mark.parametrize("taken", ["alice.pem", "alice.key"])
def test_nor_when_they_appear_in_the_last_moment(
    folder: Path, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that does not know our lock."""
    link = os.link

    def late(source: Path, target: Path) -> None:
        if Path(target).name == taken:
            Path(target).write_text("theirs")
        link(source, target)

    before = contents(folder)
    monkeypatch.setattr(os, "link", late)
    with pytest.raises(LbctlError, match=rf"{taken} exists already; it was not touched"):
        issue(folder, "alice", Purpose.CLIENT)
    assert contents(folder) == {**before, taken: b"theirs"}


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-x", "+x", "a/b", "../a", "a b", "a\n", "é", "x" * 65, "a\0b"]
)
def test_names_that_are_no_file_names(folder: Path, name: str) -> None:
    before = contents(folder)
    with pytest.raises(LbctlError, match="cannot name a certificate"):
        issue(folder, name, Purpose.CLIENT)
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["ca", "CA"])
def test_the_cas_own_files_cannot_be_issued(folder: Path, name: str) -> None:
    with pytest.raises(LbctlError, match="the CA's own files"):
        issue(folder, name, Purpose.CLIENT)


@pytest.mark.parametrize(
    "host",
    ["", "a b", "-x.example", "a..b", "é.example", "1.2.3", "256.1.1.1", "*", "a.*.b", "x" * 64, "a/b"],
)
def test_hosts_that_are_none(host: str) -> None:
    with pytest.raises(LbctlError, match="neither a host name nor an IP address"):
        names.alternative_name(host)


# ---- CAs of other tools --------------------------------------------------------------------------


def test_an_rsa_ca_issues_too(tmp_path: Path) -> None:
    foreign_ca(tmp_path / "pki", rsa.generate_private_key(65537, 2048))
    issued = issue(tmp_path / "pki", "alice", Purpose.CLIENT)
    openssl("verify", "-purpose", "sslclient", "-CAfile", tmp_path / "pki" / "ca.pem", issued.cert)


def test_a_key_of_an_unsupported_kind_is_named(tmp_path: Path) -> None:
    foreign_ca(tmp_path / "pki", ed25519.Ed25519PrivateKey.generate())
    with pytest.raises(LbctlError, match=r"ca\.key: expected an ECDSA or RSA key"):
        issue(tmp_path / "pki", "alice", Purpose.CLIENT)


def test_a_folder_without_a_ca(tmp_path: Path) -> None:
    with pytest.raises(LbctlError, match=r"no CA in .*; make one with: lbctl cert init"):
        issue(tmp_path, "alice", Purpose.CLIENT)


def test_a_folder_without_the_cas_key(folder: Path) -> None:
    (folder / "ca.key").unlink()
    with pytest.raises(LbctlError, match=r"ca\.key is not here"):
        issue(folder, "alice", Purpose.CLIENT)


def test_a_leaf_is_no_ca(folder: Path, tmp_path: Path) -> None:
    leaf = issue(folder, "alice", Purpose.CLIENT)
    (tmp_path / "ca.pem").write_bytes(leaf.cert.read_bytes())
    with pytest.raises(LbctlError, match="is not a CA certificate"):
        issue(tmp_path, "bob", Purpose.CLIENT)


def test_an_encrypted_key_is_named(folder: Path) -> None:
    openssl("ec", "-in", folder / "ca.key", "-aes256", "-passout", "pass:secret", "-out", folder / "new")
    (folder / "ca.key").write_bytes((folder / "new").read_bytes())
    with pytest.raises(LbctlError, match=r"ca\.key is encrypted; write it without a password"):
        issue(folder, "alice", Purpose.CLIENT)


# ---- reading -------------------------------------------------------------------------------------


def test_a_folder_is_listed_with_the_ca_first(folder: Path, tmp_path: Path) -> None:
    issue(folder, "zoe", Purpose.CLIENT)
    issue(folder, "alice", Purpose.CLIENT).key.unlink()
    create_ca(tmp_path / "other")
    (folder / "partner.pem").write_bytes((tmp_path / "other" / "ca.pem").read_bytes())
    (folder / "notes.pem").write_text("no certificate")
    (folder / "key.pem").write_bytes((folder / "ca.key").read_bytes())
    (folder / "dir.pem").mkdir()
    listed = [(one.name, one.issued_here, one.has_key) for one in list_certificates(folder)]
    assert listed == [
        ("ca", True, True),
        ("alice", True, False),
        ("partner", False, False),
        ("zoe", True, True),
    ]


def test_a_description_says_what_openssl_says(folder: Path) -> None:
    issued = issue(folder, "alice", Purpose.CLIENT, days=3)
    said = describe(issued.cert)
    assert said == issued.description
    assert openssl("x509", "-noout", "-serial", "-in", issued.cert).strip() == f"serial={said.serial_hex}"
    assert said.subject == "CN=alice"
    assert said.issuer == "CN=lb CA"
    assert said.key_type == "ECDSA P-256"
    assert said.state == "valid"
    assert said.days_left in (2, 3)


def test_states(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(authority, "now", lambda: datetime.now(UTC) - timedelta(days=9))
        create_ca(folder / "old", days=8)
        patch.setattr(authority, "now", lambda: datetime.now(UTC) + timedelta(days=9))
        create_ca(folder / "new", days=8)
    assert describe(folder / "old" / "ca.pem").state == "expired"
    assert describe(folder / "old" / "ca.pem").days_left < 0
    assert describe(folder / "new" / "ca.pem").state == "not yet valid"


# ---- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [errno.EPERM, errno.EOPNOTSUPP])
def test_file_systems_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "link", no_links)
    create_ca(tmp_path)
    issue(tmp_path, "alice", Purpose.CLIENT)
    assert contents(tmp_path).keys() == {"ca.pem", "ca.key", "alice.pem", "alice.key"}
    assert mode(tmp_path / "alice.key") == 0o600
    before = contents(tmp_path)
    with pytest.raises(LbctlError, match="exists already"):
        files.create(tmp_path / "alice.key", b"new", 0o600)
    assert contents(tmp_path) == before


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LbctlError, match=r"cannot write .*: No space left on device"):
        files.create(tmp_path / "x", b"content", 0o600)
    assert not list(tmp_path.iterdir())


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LbctlError, match="No space left on device"):
        files.replace(tmp_path / "x", b"new", 0o600)
    assert contents(tmp_path) == {"x": b"old"}


# ---- the first configuration's -------------------------------------------------------------------


def test_a_starter_needs_nothing(tmp_path: Path) -> None:
    made = starter(tmp_path / "certs")
    assert made.made == ("ca", "server", "alice")
    assert [client.name for client in made.clients] == ["alice"]
    again = starter(tmp_path / "certs")
    assert again.made == ()
    assert again.clients == made.clients


def test_a_starter_skips_what_cannot_serve(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(authority, "now", lambda: datetime.now(UTC) - timedelta(days=2))
        patch.setattr(Authority, "days_left", lambda self: 100)
        (folder / "ca.pem").unlink()
        (folder / "ca.key").unlink()
        create_ca(folder, days=100)
        issue(folder, "old", Purpose.CLIENT, days=1)
        issue(folder, "server", Purpose.SERVER, days=1)
    issue(folder, "bob", Purpose.CLIENT)
    (folder / "bob-copy.pem").write_bytes((folder / "bob.pem").read_bytes())
    (folder / "with space.pem").write_bytes((folder / "bob.pem").read_bytes())
    with pytest.raises(LbctlError, match=r"server\.pem cannot serve; .*move it away"):
        starter(folder)  # expired, and not ours to replace
    issue(folder, "web", Purpose.SERVER)
    made = starter(folder)
    assert made.server == "web"
    assert [client.name for client in made.clients] == ["bob"]
