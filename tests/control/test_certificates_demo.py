"""The demo's certificates: made once, reused, made whole, issued again; never at the cost of other files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest
from kit.commands import contents, mode, openssl
from kit.daemon import environment

from lbctl.certificates import (
    Purpose,
    authority,
    create_ca,
    demo_certificates,
    describe,
    files,
    pem,
    read_ca,
)
from lbctl.errors import LbctlError

FILES = {f"{name}.{end}" for name in ("ca", "server", "alice", "mallory") for end in ("pem", "key")}
LEAVES = ("server", "alice", "mallory")


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "certs"


class MakeInThePast(Protocol):
    def __call__(self, ago: timedelta) -> None: ...


@pytest.fixture
def make_in_the_past(monkeypatch: pytest.MonkeyPatch, certs: Path) -> MakeInThePast:
    """Makes the set as it was made some time ago."""

    def make(ago: timedelta) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(authority, "now", lambda: datetime.now(UTC).replace(microsecond=0) - ago)
            demo_certificates(certs)

    return make


def refused(certs: Path, text: str) -> None:
    """It fails, says why, and every file is as it was."""
    before = contents(certs)
    with pytest.raises(LbctlError, match=text):
        demo_certificates(certs)
    assert contents(certs) == before


def verify(certs: Path) -> None:
    for name in LEAVES:
        openssl("verify", "-x509_strict", "-CAfile", certs / "ca.pem", certs / f"{name}.pem")


# ---- the first time ------------------------------------------------------------------------------


def test_exactly_eight_files_with_private_keys(certs: Path) -> None:
    made = demo_certificates(certs)
    assert {path.name for path in certs.iterdir()} == FILES
    assert mode(certs) == 0o700
    for name in FILES:
        assert mode(certs / name) == (0o600 if name.endswith(".key") else 0o644), name
    assert made.created
    assert made.directory == certs
    assert made.alice.cert == certs / "alice.pem"
    assert made.mallory.key == certs / "mallory.key"


def test_keys_are_private_under_any_umask(certs: Path) -> None:
    before = os.umask(0)
    try:
        demo_certificates(certs)
    finally:
        os.umask(before)
    assert mode(certs) == 0o700
    assert {mode(key) for key in certs.glob("*.key")} == {0o600}


def test_an_existing_folder_keeps_its_mode_and_other_files(certs: Path) -> None:
    certs.mkdir(mode=0o755)
    certs.chmod(0o755)
    (certs / "README.md").write_text("ours")
    demo_certificates(certs)
    assert mode(certs) == 0o755
    assert (certs / "README.md").read_text() == "ours"


def test_openssl_accepts_them_for_their_purposes_only(certs: Path) -> None:
    demo_certificates(certs)
    verify(certs)
    purposes = {name: openssl("x509", "-noout", "-purpose", "-in", certs / f"{name}.pem") for name in LEAVES}
    for name in ("alice", "mallory"):
        assert "SSL client : Yes" in purposes[name]
        assert "SSL server : No" in purposes[name]
    assert "SSL server : Yes" in purposes["server"]
    assert "SSL client : No" in purposes["server"]
    text = openssl("x509", "-noout", "-ext", "subjectAltName", "-in", certs / "server.pem")
    assert "DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1" in text


def test_what_it_says_is_what_openssl_says(certs: Path) -> None:
    made = demo_certificates(certs)
    fingerprint = openssl("x509", "-noout", "-fingerprint", "-sha256", "-in", certs / "ca.pem")
    assert fingerprint.strip().partition("=")[2] == made.ca_fingerprint
    for client in (made.alice, made.mallory):
        serial = openssl("x509", "-noout", "-serial", "-in", client.cert).strip()
        assert serial == f"serial={client.serial:X}"
        assert len(f"{client.serial:X}") == 16
    assert made.alice.serial != made.mallory.serial
    week = made.not_after - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < week <= timedelta(days=7)


def test_two_folders_have_nothing_in_common(tmp_path: Path) -> None:
    one, other = demo_certificates(tmp_path / "one"), demo_certificates(tmp_path / "other")
    assert one.ca_fingerprint != other.ca_fingerprint
    assert one.alice.serial != other.alice.serial
    assert not set(contents(one.directory).values()) & set(contents(other.directory).values())


# ---- the next time -------------------------------------------------------------------------------


def test_a_complete_set_is_reused(certs: Path) -> None:
    first, before = demo_certificates(certs), contents(certs)
    second = demo_certificates(certs)
    assert contents(certs) == before
    assert not second.created
    assert (second.alice, second.mallory, second.ca_fingerprint, second.not_after) == (
        first.alice,
        first.mallory,
        first.ca_fingerprint,
        first.not_after,
    )


@pytest.mark.parametrize("missing", sorted(FILES - {"ca.pem", "ca.key"}))
def test_a_missing_file_is_made_and_the_others_stay(certs: Path, missing: str) -> None:
    demo_certificates(certs)
    before = contents(certs)
    (certs / missing).unlink()
    assert not demo_certificates(certs).created
    after = contents(certs)
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    stem = missing.partition(".")[0]
    assert changed == ({missing} if missing.endswith(".pem") else {f"{stem}.pem", f"{stem}.key"})
    assert mode(certs / f"{stem}.key") == 0o600
    verify(certs)


def test_without_the_ca_certificate_its_key_signs_a_new_one(certs: Path) -> None:
    demo_certificates(certs)
    before = contents(certs)
    (certs / "ca.pem").unlink()
    assert demo_certificates(certs).created
    after = contents(certs)
    assert {name for name in before if after[name] != before[name]} == {"ca.pem"}
    verify(certs)


def test_the_ca_key_may_be_kept_elsewhere_as_long_as_nothing_is_missing(certs: Path) -> None:
    first = demo_certificates(certs)
    (certs / "ca.key").unlink()
    assert demo_certificates(certs).alice == first.alice
    assert not (certs / "ca.key").exists()
    (certs / "alice.pem").unlink()
    refused(certs, r"ca\.key is missing")


@pytest.mark.parametrize(
    "ago", [timedelta(days=8), timedelta(days=6, hours=23, minutes=30), timedelta(days=-1)], ids=str
)
def test_what_has_ended_or_is_about_to_is_issued_again(
    certs: Path, make_in_the_past: MakeInThePast, ago: timedelta
) -> None:
    make_in_the_past(ago)
    before = contents(certs)
    made = demo_certificates(certs)
    after = contents(certs)
    assert made.created
    assert made.not_after - datetime.now(UTC) > timedelta(days=6, hours=23)
    assert {name for name in FILES if after[name] != before[name]} == {n for n in FILES if n.endswith("pem")}
    assert after.keys() == FILES
    verify(certs)


def test_what_ends_tomorrow_is_reused(certs: Path, make_in_the_past: MakeInThePast) -> None:
    make_in_the_past(timedelta(days=6))
    before = contents(certs)
    assert not demo_certificates(certs).created
    assert contents(certs) == before


def test_an_expired_ca_without_its_key_is_an_error(certs: Path, make_in_the_past: MakeInThePast) -> None:
    make_in_the_past(timedelta(days=8))
    (certs / "ca.key").unlink()
    refused(certs, r"ca\.key is missing")


# ---- files of somebody else ----------------------------------------------------------------------


def test_another_ca_is_left_alone(certs: Path) -> None:
    create_ca(certs, "payments CA")
    refused(certs, r"ca\.pem is not the demo's CA but 'payments CA'; run the demo in another folder")


def test_a_name_alone_does_not_make_a_demo_ca(certs: Path, tmp_path: Path) -> None:
    """A leaf that calls itself like the CA that issued it."""
    other = demo_certificates(tmp_path / "other").directory
    leaf = read_ca(other).issue("lb demo CA", pem.new_key(), Purpose.CLIENT, 7)
    certs.mkdir()
    (certs / "ca.pem").write_bytes(pem.encode_certificate(leaf))
    refused(certs, "is not the demo's CA")


@pytest.mark.parametrize("name", LEAVES)
def test_a_certificate_of_another_demo_is_left_alone(certs: Path, tmp_path: Path, name: str) -> None:
    demo_certificates(certs)
    other = demo_certificates(tmp_path / "other")
    for end in ("pem", "key"):
        (certs / f"{name}.{end}").write_bytes((other.directory / f"{name}.{end}").read_bytes())
    refused(certs, rf"{name}\.pem was not issued by the demo's CA in this folder")


def test_certificates_without_their_ca_are_left_alone(certs: Path) -> None:
    demo_certificates(certs)
    (certs / "ca.pem").unlink()
    (certs / "ca.key").unlink()
    refused(certs, r"server\.pem was not issued by the demo's CA in this folder")


@pytest.mark.parametrize("name", ["ca", *LEAVES])
def test_a_key_that_does_not_match_is_left_alone(certs: Path, tmp_path: Path, name: str) -> None:
    demo_certificates(certs)
    other = demo_certificates(tmp_path / "other").directory / f"{name}.key"
    (certs / f"{name}.key").write_bytes(other.read_bytes())
    refused(certs, rf"{name}\.key is not the key of .*{name}\.pem")


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_that_is_something_else_is_left_alone(certs: Path, name: str) -> None:
    demo_certificates(certs)
    (certs / name).write_bytes(b"notes of mine\n")
    refused(certs, rf"{name.replace('.', '[.]')} holds no ")


def test_a_file_too_large_to_be_one_is_not_read_in(certs: Path) -> None:
    demo_certificates(certs)
    (certs / "alice.pem").write_bytes(b"x" * (files.PEM_MAX + 1))
    refused(certs, r"alice\.pem is larger than 1 MiB")


@pytest.mark.parametrize("name", ["ca.key", "server.key", "alice.key"])
def test_a_key_open_to_others_is_refused(certs: Path, name: str) -> None:
    demo_certificates(certs)
    (certs / name).chmod(0o640)
    refused(certs, rf"{name} is open to other users \(mode 0640\); run: chmod 600 ")


def test_a_dangling_link_is_not_followed(certs: Path, tmp_path: Path) -> None:
    certs.mkdir()
    (certs / "ca.key").symlink_to(tmp_path / "elsewhere")
    refused(certs, r"cannot read .*ca\.key: No such file")
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "certs").write_text("a file")
    with pytest.raises(LbctlError, match=r"cannot create the folder .*certs"):
        demo_certificates(tmp_path / "certs")


# ---- two at once ---------------------------------------------------------------------------------

_RACER = """
import sys
from pathlib import Path
from lbctl.certificates import demo_certificates
sys.stdin.readline()  # the gate
made = demo_certificates(Path(sys.argv[1]))
print(made.created, made.ca_fingerprint, made.alice.serial, made.mallory.serial)
"""


def test_processes_that_start_together_make_one_set(certs: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(certs)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = []
    for racer in racers:
        out, err = racer.communicate(timeout=40)
        assert racer.returncode == 0, err
        said.append(out.split())
    assert sorted(words[0] for words in said) == ["False", "False", "False", "True"]
    assert len({tuple(words[1:]) for words in said}) == 1
    assert {path.name for path in certs.iterdir()} == FILES
    verify(certs)


def test_waiting_for_another_process_has_an_end(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certs.mkdir()
    monkeypatch.setattr(files, "LOCK_WAIT", 0.1)
    holder = os.open(certs, os.O_RDONLY)
    try:
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(LbctlError, match="another process has been writing to"):
            demo_certificates(certs)
    finally:
        os.close(holder)
    assert demo_certificates(certs).created


# ---- the script ----------------------------------------------------------------------------------


def test_the_script_makes_the_set_and_keeps_it(certs: Path) -> None:
    script = Path(__file__).parents[2] / "certs" / "make_certs.py"

    def run() -> str:
        done = subprocess.run(
            [sys.executable, script, certs],
            env=environment(), capture_output=True, text=True, timeout=40, check=True,
        )  # fmt: skip
        return done.stdout

    first = run()
    assert {path.name for path in certs.iterdir()} == FILES
    assert "new CA" in first
    assert f"alice    serial {describe(certs / 'alice.pem').serial_hex}" in first
    before = contents(certs)
    assert "kept" in run()
    assert contents(certs) == before
