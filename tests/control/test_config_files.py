"""Certificates and keys that a configuration names."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lbctl.config import Problem, check_files, read

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def write_key(path: Path, key: Key, password: bytes | None = None) -> None:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how))
    path.chmod(0o600)


def certificate(
    key: Key,
    *,
    starts: datetime = NOW - DAY,
    ends: datetime = NOW + 365 * DAY,
    ca: bool = False,
    purpose: x509.ObjectIdentifier | None = None,
    cert_sign: bool = True,
) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), starts, ends)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(
            x509.KeyUsage(True, False, False, False, False, ca and cert_sign, False, False, False),
            critical=True,
        )
    )
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM)


KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
Check = Callable[[], list[Problem]]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Good files in the current directory, and a function that checks them."""
    monkeypatch.chdir(tmp_path)
    Path("lb.yaml").write_text(
        "version: 1\n"
        "tls:\n"
        "  cert: server.pem\n"
        "  key: server.key\n"
        "  client_ca: ca.pem\n"
        "  expiry_warning: [30d, 7d]\n"
        "apps:\n"
        '  web: {listen: "127.0.0.1:8443", upstreams: [{address: "10.0.0.1:80"}]}\n'
    )
    write_key(Path("server.key"), KEY)
    Path("server.pem").write_bytes(certificate(KEY))
    Path("ca.pem").write_bytes(certificate(OTHER, ca=True))
    return lambda: check_files(read(Path("lb.yaml"), {}), now=NOW)


def only(problems: list[Problem]) -> Problem:
    assert len(problems) == 1, problems
    return problems[0]


def test_good_files_have_no_problems(check: Check) -> None:
    assert check() == []


def test_a_problem_has_the_place_in_the_configuration(check: Check) -> None:
    Path("server.pem").unlink()
    path = Path.cwd() / "server.pem"
    assert only(check()).render().splitlines() == [
        f"lb.yaml:3:9: error: tls.cert: cannot read {path}: No such file or directory",
        "    3 |   cert: server.pem",
        "      |         ^",
    ]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_a_key_is_its_owner_s_alone(check: Check, mode: int) -> None:
    Path("server.key").chmod(mode)
    problem = only(check())
    assert problem.path == "tls.key"
    assert f"is open to other users (mode {mode:04o}); run: chmod 600" in problem.message


def test_a_key_of_another_certificate(check: Check) -> None:
    write_key(Path("server.key"), OTHER)
    problem = only(check())
    assert (problem.path, problem.severity) == ("tls.key", "error")
    assert "is not the key of the certificate" in problem.message


def test_an_encrypted_key(check: Check) -> None:
    write_key(Path("server.key"), KEY, b"password")
    assert "an encrypted private key; write it without a password" in only(check()).message


def test_a_key_of_a_kind_the_engine_cannot_use(check: Check) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    write_key(Path("server.key"), key)
    Path("server.pem").write_bytes(certificate(key))
    assert "expected an ECDSA or RSA key" in only(check()).message


@pytest.mark.parametrize(
    ("name", "path"), [("server.pem", "tls.cert"), ("server.key", "tls.key"), ("ca.pem", "tls.client_ca")]
)
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\xff" * 100, b"x" * (2 * 1024 * 1024)])
def test_what_is_no_pem(check: Check, name: str, path: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    problem = only(check())
    assert problem.path == path
    assert "no usable" in problem.message


@pytest.mark.parametrize(("name", "ca"), [("server.pem", False), ("ca.pem", True)])
@pytest.mark.parametrize(
    ("starts", "ends", "severity", "message"),
    [
        (NOW - 9 * DAY, NOW - DAY, "error", "expired on 2026-11-22 12:00 UTC"),
        (NOW + DAY, NOW + 99 * DAY, "error", "is not valid before 2026-11-24 12:00 UTC"),
        (NOW - DAY, NOW + 6.5 * DAY, "warning", "expires in 6d, on 2026-11-30 00:00 UTC"),
        (NOW - DAY, NOW + DAY / 5, "warning", "expires in 4h, on 2026-11-23 16:48 UTC"),
    ],
)
def test_dates(
    check: Check, name: str, ca: bool, starts: datetime, ends: datetime, severity: str, message: str
) -> None:
    Path(name).write_bytes(certificate(OTHER if ca else KEY, ca=ca, starts=starts, ends=ends))
    problem = only(check())
    assert problem.severity == severity
    assert message in problem.message


def test_one_ca_and_no_more(check: Check) -> None:
    Path("ca.pem").write_bytes(certificate(OTHER, ca=True) + certificate(KEY, ca=True))
    assert "holds 2 certificates; there is exactly one client CA" in only(check()).message


@pytest.mark.parametrize("pem", [certificate(OTHER), certificate(OTHER, ca=True, cert_sign=False)])
def test_a_client_ca_is_a_ca(check: Check, pem: bytes) -> None:
    Path("ca.pem").write_bytes(pem)
    assert "is not a CA certificate" in only(check()).message


def test_a_certificate_for_clients_is_odd_on_a_server(check: Check) -> None:
    Path("server.pem").write_bytes(certificate(KEY, purpose=ExtendedKeyUsageOID.CLIENT_AUTH))
    problem = only(check())
    assert problem.severity == "warning"
    assert "is not meant for servers" in problem.message


def test_an_app_s_own_certificate_is_checked(check: Check) -> None:
    text = Path("lb.yaml").read_text()
    Path("lb.yaml").write_text(text.replace("web: {", "web: {tls: {cert: own.pem, key: own.key}, "))
    assert [problem.path for problem in check()] == ["apps.web.tls.cert", "apps.web.tls.key"]
    Path("own.pem").write_bytes(certificate(OTHER))
    write_key(Path("own.key"), OTHER)
    assert check() == []


def test_checking_changes_nothing(check: Check) -> None:
    before = {entry.name: entry.stat().st_mtime_ns for entry in os.scandir()}
    check()
    assert {entry.name: entry.stat().st_mtime_ns for entry in os.scandir()} == before
