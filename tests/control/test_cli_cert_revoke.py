"""`lbctl cert revoke` and `lbctl cert crl`, and what a running balancer makes of the list."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from kit.clients import client_context, outcome
from kit.commands import lbctl_inside
from kit.daemon import Daemon, configuration
from kit.pki import DAY, Pki
from kit.servers import require_server
from kit.sockets import End
from kit.upstreams import Upstream


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A CA with two clients, in `certs`."""
    assert lbctl_inside("cert", "init", cwd=tmp_path).code == 0
    for name in ("alice", "bob"):
        assert lbctl_inside("cert", "issue", name, cwd=tmp_path).code == 0
    return tmp_path


def serial(folder: Path, name: str) -> int:
    return x509.load_pem_x509_certificate((folder / "certs" / f"{name}.pem").read_bytes()).serial_number


def on_list(folder: Path) -> list[int]:
    crl = x509.load_pem_x509_crl((folder / "certs/ca.crl").read_bytes())
    return [entry.serial_number for entry in crl]


def number(folder: Path) -> int:
    crl = x509.load_pem_x509_crl((folder / "certs/ca.crl").read_bytes())
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_name_a_file_and_a_serial(folder: Path) -> None:
    ran = lbctl_inside("cert", "revoke", "alice", cwd=folder)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[0].endswith(" revoked")
    assert "certs/ca.crl  list 1, 1 entry, the next is due by " in ran.out
    assert ran.out.endswith("for lb.yaml:\n\ntls:\n  crl: certs/ca.crl\n")
    assert lbctl_inside("cert", "revoke", "certs/bob.pem", cwd=folder).code == 0
    assert lbctl_inside("cert", "revoke", "0A:BC", cwd=folder).code == 0
    assert on_list(folder) == [serial(folder, "alice"), serial(folder, "bob"), 0xABC]
    assert number(folder) == 3
    assert (folder / "certs/ca.crl").stat().st_mode & 0o777 == 0o644
    checked = subprocess.run(
        [require_server("openssl"), "crl", "-in", "certs/ca.crl", "-CAfile", "certs/ca.pem", "-noout"],
        cwd=folder, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    assert "verify OK" in checked.stderr


def test_twice_is_said_and_harmless(folder: Path) -> None:
    lbctl_inside("cert", "revoke", "alice", cwd=folder)
    ran = lbctl_inside("cert", "revoke", "alice", "--json", cwd=folder)
    assert (ran.code, ran.json()["added"], len(ran.json()["serials"])) == (0, False, 1)
    assert "was revoked before" in lbctl_inside("cert", "revoke", "alice", cwd=folder).out
    assert on_list(folder) == [serial(folder, "alice")]


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    ran = lbctl_inside("cert", "revoke", "alice", "--dry-run", cwd=folder)
    assert ran.code == 0
    assert "would be revoked" in ran.out
    assert "(not written)" in ran.out
    assert not (folder / "certs/ca.crl").exists()


def test_the_list_shows_who_is_revoked(folder: Path) -> None:
    lbctl_inside("cert", "revoke", "alice", cwd=folder)
    rows = {row.split()[0]: row for row in lbctl_inside("cert", "list", cwd=folder).out.splitlines()}
    assert rows["alice"].endswith("revoked")
    assert not rows["bob"].endswith("revoked")
    listed = lbctl_inside("cert", "list", "--json", cwd=folder).json()
    assert {one["name"]: one["revoked"] for one in listed} == {"ca": False, "alice": True, "bob": False}


def test_renewed_it_lasts_longer(folder: Path) -> None:
    assert lbctl_inside("cert", "crl", cwd=folder).code == 0
    assert on_list(folder) == []
    lbctl_inside("cert", "revoke", "alice", "--days", "1", cwd=folder)
    ran = lbctl_inside("cert", "crl", "--days", "30", "--json", cwd=folder)
    ends = dt.datetime.fromisoformat(ran.json()["next_update"])
    assert dt.timedelta(days=29) < ends - dt.datetime.now(dt.UTC) <= dt.timedelta(days=30)
    assert on_list(folder) == [serial(folder, "alice")]
    assert number(folder) == 3


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("nobody", "no nobody.pem in certs, and neither a file nor a serial in hexadecimal"),
        ("ca", "is the CA itself"),
        ("00", "neither a file nor a serial"),
        ("stranger.pem", "was not issued by the CA in certs"),
        ("certs/ca.key", "ca.key"),
    ],
)
def test_what_cannot_be_revoked(folder: Path, pki: Pki, which: str, message: str) -> None:
    (folder / "stranger.pem").write_bytes(pki.alice.cert.read_bytes())
    ran = lbctl_inside("cert", "revoke", which, cwd=folder)
    assert ran.code == 1
    assert message in ran.err
    assert not (folder / "certs/ca.crl").exists()


@pytest.mark.parametrize("content", [b"", b"no list", None], ids=["empty", "text", "another CA's"])
def test_a_list_that_is_not_ours_is_not_touched(folder: Path, pki: Pki, content: bytes | None) -> None:
    foreign = pki.ca.crl() if content is None else content
    (folder / "certs/ca.crl").write_bytes(foreign)
    ran = lbctl_inside("cert", "revoke", "alice", cwd=folder)
    assert ran.code == 1
    assert "it was not touched" in ran.err
    assert (folder / "certs/ca.crl").read_bytes() == foreign


# ---- in the configuration ------------------------------------------------------------------------


@pytest.fixture
def config(pki: Pki, tmp_path: Path) -> dict[str, Any]:
    pki.server.key.chmod(0o600)
    found = configuration(pki, "127.0.0.1:1")
    found["tls"]["crl"] = "ca.crl"
    (tmp_path / "ca.crl").write_bytes(pki.ca.crl(pki.bob.serial))
    return found


@pytest.mark.parametrize("several", [False, True])
def test_a_running_balancer_refuses_who_is_on_it(
    tmp_path: Path, pki: Pki, config: dict[str, Any], several: bool
) -> None:
    with Upstream() as upstream:
        config["apps"]["web"]["upstreams"][0]["address"] = upstream.address
        config["clients"]["alice"]["serials"].append(f"{pki.bob.serial:X}")
        if several:
            (tmp_path / "more.crl").write_bytes(pki.ca.crl(1))
            config["tls"]["crl"] = ["more.crl", "ca.crl"]
        with Daemon(tmp_path, config) as daemon:
            port = daemon.port()
            assert outcome(port, client_context(pki, pki.bob)) in (End.RESET, End.ALERT)
            denied = daemon.wait_event("conn.deny")
            assert (denied["reason"], denied["stage"]) == ("revoked", "authenticate")
            assert "tls.crl" in denied["fix"]
            daemon.signal(signal.SIGTERM)
            assert daemon.wait() == 0
        assert upstream.accepted == 0


def test_a_list_that_has_ended_is_said_by_check_and_run(
    tmp_path: Path, pki: Pki, config: dict[str, Any]
) -> None:
    (tmp_path / "ca.crl").write_bytes(pki.ca.crl(starts=-2 * DAY, ends=-DAY))
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 1
        assert "tls.crl: " in daemon.text()
        assert "expired on " in daemon.text()
    ran = lbctl_inside("check", "-c", "lb.yaml", cwd=tmp_path)
    assert ran.code == 1
    assert "error: tls.crl: " in ran.err
    assert "ca.crl: expired on " in ran.err


def test_a_list_that_is_missing(tmp_path: Path, config: dict[str, Any]) -> None:
    (tmp_path / "ca.crl").unlink()
    with Daemon(tmp_path, config) as daemon:
        assert daemon.wait() == 1
        assert "ca.crl: No such file" in daemon.text()
    ran = lbctl_inside("check", "-c", "lb.yaml", cwd=tmp_path)
    assert ran.code == 1
    assert "tls.crl: cannot read " in ran.err
