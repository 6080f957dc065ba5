"""`lbctl cert`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from kit.commands import contents, lbctl_inside, mode, openssl

from lbctl import config
from lbctl.certificates import pem
from lbctl.cli.stanza import client_stanza, yaml_key, yaml_path

HOSTILE = 'x\n14:02:11 admitted\x1b[31m<img onerror=1>"}\u202e%n%s{0}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a CA in ./certs."""
    assert lbctl_inside("cert", "init", cwd=tmp_path).code == 0
    return tmp_path


def test_init(tmp_path: Path) -> None:
    ran = lbctl_inside("cert", "init", "pki", "--name", "payments CA", "--days", "90", cwd=tmp_path)
    assert ran.code == 0
    assert "lbctl cert issue NAME --dir pki" in ran.out
    assert contents(tmp_path / "pki").keys() == {"ca.pem", "ca.key"}
    assert mode(tmp_path / "pki" / "ca.key") == 0o600
    ca = tmp_path / "pki" / "ca.pem"
    text = openssl("x509", "-noout", "-subject", "-checkend", str(89 * 86400), "-in", ca)
    assert "CN = payments CA" in text
    before = contents(tmp_path / "pki")
    again = lbctl_inside("cert", "init", "pki", cwd=tmp_path)
    assert again.code == 1
    assert again.err == "lbctl: error: pki/ca.pem exists already; it was not touched\n"
    assert contents(tmp_path / "pki") == before


def test_init_for_programs(tmp_path: Path) -> None:
    said = lbctl_inside("cert", "init", "--json", cwd=tmp_path).json()
    assert said["cert"] == "certs/ca.pem"
    assert said["key"] == "certs/ca.key"
    assert said["subject"] == "CN=lb CA"


def test_issue_prints_a_stanza_that_lets_the_client_in(folder: Path) -> None:
    ran = lbctl_inside("cert", "issue", "billing-api", "--days", "30", cwd=folder)
    assert ran.code == 0
    openssl("verify", "-purpose", "sslclient", "-CAfile", folder / "certs/ca.pem",
            folder / "certs/billing-api.pem")  # fmt: skip
    assert mode(folder / "certs" / "billing-api.key") == 0o600
    assert lbctl_inside("cert", "issue", "web", "--server", "--san", "db.lan", cwd=folder).code == 0
    stanza = ran.out.partition("for lb.yaml:\n\n")[2]
    (folder / "lb.yaml").write_text(
        "version: 1\ntls: {cert: certs/web.pem, key: certs/web.key, client_ca: certs/ca.pem}\n"
        "apps: {web: {listen: 127.0.0.1:8443, upstreams: [{address: 127.0.0.1:80}]}}\n"
        + stanza.replace("apps: []", "apps: [web]")
    )
    loaded = config.read(folder / "lb.yaml", {})
    serial = openssl("x509", "-noout", "-serial", "-in", folder / "certs/billing-api.pem").partition("=")[2]
    assert loaded.config.clients["billing-api"].serials == (int(serial, 16),)
    assert lbctl_inside("check", cwd=folder).code == 0


def test_issue_for_a_server_prints_what_it_presents(folder: Path) -> None:
    hosts = ("--san", "db.lan", "--san", "10.0.0.1")
    ran = lbctl_inside("cert", "issue", "web", "--server", *hosts, cwd=folder)
    assert ran.code == 0
    assert "names  db.lan, 10.0.0.1\n" in ran.out
    stanza = yaml.safe_load(ran.out.partition("for lb.yaml:\n\n")[2])
    assert stanza["tls"] == {
        "cert": "certs/web.pem", "key": "certs/web.key", "client_ca": "certs/ca.pem",
    }  # fmt: skip
    openssl("verify", "-purpose", "sslserver", "-verify_hostname", "db.lan",
            "-CAfile", folder / "certs/ca.pem", folder / "certs/web.pem")  # fmt: skip


def test_issue_for_programs(folder: Path) -> None:
    said = lbctl_inside("cert", "issue", "alice", "--json", cwd=folder).json()
    assert (said["cert"], said["key"]) == ("certs/alice.pem", "certs/alice.key")
    assert said["key_type"] == "ECDSA P-256"
    assert yaml.safe_load(said["config"])["clients"]["alice"]["serials"][0].replace(":", "") == said["serial"]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["issue", "../alice"], 1, "cannot name a certificate"),
        (["issue", "--", "-x"], 1, "cannot name a certificate"),
        (["issue", "ca"], 1, "the CA's own files"),
        (["issue", "alice", "--san", "a.lan"], 64, "add --server"),
        (["issue", "alice", "--server", "--san", "a b"], 1, "neither a host name nor an IP address"),
        (["issue", "alice", "--days", "36500"], 1, "cannot outlive it"),
        (["issue", "alice", "--dir", "nowhere"], 1, "make one with: lbctl cert init nowhere"),
    ],
)
def test_issue_says_what_is_wrong(folder: Path, arguments: list[str], code: int, text: str) -> None:
    before = contents(folder / "certs")
    ran = lbctl_inside("cert", *arguments, cwd=folder)
    assert ran.code == code
    assert text in ran.err
    assert ran.out == ""
    assert contents(folder / "certs") == before


def test_issue_never_overwrites(folder: Path) -> None:
    assert lbctl_inside("cert", "issue", "alice", cwd=folder).code == 0
    before = contents(folder / "certs")
    ran = lbctl_inside("cert", "issue", "alice", cwd=folder)
    assert ran.code == 1
    assert "certs/alice.pem exists already; it was not touched" in ran.err
    assert contents(folder / "certs") == before


def test_list(folder: Path) -> None:
    lbctl_inside("cert", "issue", "alice", "--days", "9", cwd=folder)
    (folder / "certs" / "alice.key").unlink()
    ran = lbctl_inside("cert", "list", cwd=folder)
    assert ran.code == 0
    head, ca, alice = ran.out.splitlines()
    assert head.split() == ["NAME", "FOR", "SERIAL", "ENDS", "REMARKS"]
    assert ca.split()[:2] == ["ca", "CA"]
    assert alice.split()[:2] == ["alice", "client"]
    assert alice.endswith("no key here")
    said = lbctl_inside("cert", "list", "certs", "--json", cwd=folder).json()
    assert [(one["name"], one["issued_here"], one["has_key"]) for one in said] == [
        ("ca", True, True),
        ("alice", True, False),
    ]


def test_list_of_nothing(tmp_path: Path) -> None:
    ran = lbctl_inside("cert", "list", ".", cwd=tmp_path)
    assert (ran.code, ran.out) == (0, "")
    assert "no certificates in ." in ran.err
    assert lbctl_inside("cert", "list", ".", "--json", cwd=tmp_path).json() == []
    assert lbctl_inside("cert", "list", "absent", cwd=tmp_path).code == 1


def test_show(folder: Path) -> None:
    lbctl_inside("cert", "issue", "web", "--server", cwd=folder)
    ran = lbctl_inside("cert", "show", "certs/web.pem", cwd=folder)
    assert ran.code == 0
    rows = {line[:8].strip(): line[9:] for line in ran.out.splitlines()}
    assert rows["subject"] == "CN=web"
    assert rows["issuer"] == "CN=lb CA"
    assert rows["names"] == "localhost, 127.0.0.1, ::1"
    assert rows["for"] == "server"
    assert rows["state"] in ("364 days left", "365 days left")
    fingerprint = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", folder / "certs/web.pem")
    assert rows["SHA-256"] == fingerprint.strip().partition("=")[2]
    said = lbctl_inside("cert", "show", "certs/web.pem", "--json", cwd=folder).json()
    assert said["names"] == ["localhost", "127.0.0.1", "::1"]
    assert said["serial"] == rows["serial"]


def test_names_inside_a_certificate_are_escaped(tmp_path: Path) -> None:
    key = pem.new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOSTILE)])
    uri = x509.UniformResourceIdentifier("spiffe://x\x1b[2J\n")
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0x80)
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "x.pem").write_bytes(pem.encode_certificate(certificate))
    shown = lbctl_inside("cert", "show", "x.pem", cwd=tmp_path)
    assert shown.code == 0
    assert len(shown.out.splitlines()) == 9
    listed = lbctl_inside("cert", "list", ".", cwd=tmp_path)
    assert len(listed.out.splitlines()) == 2
    for text in (shown.out, listed.out):
        assert all(char.isprintable() or char == "\n" for char in text)
    assert "serial   80\n" in shown.out
    assert "state    expired\n" in shown.out
    said = lbctl_inside("cert", "show", "x.pem", "--json", cwd=tmp_path)
    assert said.out.isascii()
    assert "\x1b" not in said.out
    assert said.json()["state"] == "expired"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_show_of_something_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pem").write_bytes(content)
    ran = lbctl_inside("cert", "show", "x.pem", cwd=tmp_path)
    assert ran.code == 1
    assert ran.err == "lbctl: error: x.pem holds no certificate in PEM\n"


@pytest.mark.parametrize("name", ["alice", "true", "no", "null", "123", "0x1F", "1e5", "a.b@c", "_x", "1.5"])
def test_a_stanza_is_read_as_it_was_meant(name: str) -> None:
    tree = yaml.safe_load(client_stanza(name, 0x1001))
    assert tree == {"clients": {name: {"serials": ["10:01"], "apps": []}}}
    assert yaml.safe_load(f"{yaml_key(name)}: x") == {name: "x"}


@pytest.mark.parametrize("path", ["certs/a.pem", "/a b/c.pem", "a: b", "#x", "é/x.pem", "-x", '"q"'])
def test_a_path_in_a_stanza(path: str) -> None:
    assert yaml.safe_load(f"cert: {yaml_path(path)}") == {"cert": path}
