"""`lbctl init`: what it writes passes `lbctl check` and serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.commands import contents, lbctl_inside, mode
from kit.upstreams import Upstream

import lbcore
from lbctl import config
from lbctl.certificates import create_ca, demo_certificates


def check(folder: Path) -> None:
    ran = lbctl_inside("check", "--strict", cwd=folder)
    assert (ran.code, ran.err) == (0, "")


def test_from_nothing(tmp_path: Path) -> None:
    ran = lbctl_inside("init", cwd=tmp_path)
    assert ran.code == 0
    assert contents(tmp_path).keys() == {"lb.yaml", "lb.schema.json"}
    assert mode(tmp_path / "lb.yaml") == 0o644
    assert contents(tmp_path / "certs").keys() == {
        f"{name}.{end}" for name in ("ca", "server", "alice") for end in ("pem", "key")
    }
    check(tmp_path)
    for line in ("lbctl check", "lbctl run", "--cert certs/alice.pem --key certs/alice.key"):
        assert f"  {line}" in ran.out or line in ran.out


def test_the_modeline_names_the_schema_next_to_it(tmp_path: Path) -> None:
    lbctl_inside("init", cwd=tmp_path)
    first = (tmp_path / "lb.yaml").read_text().splitlines()[0]
    assert first == "# yaml-language-server: $schema=./lb.schema.json"
    assert json.loads((tmp_path / "lb.schema.json").read_text()) == lbctl_inside("schema").json()


def test_the_demos_certificates_are_kept_and_its_clients_named(tmp_path: Path) -> None:
    made = demo_certificates(tmp_path / "certs")
    before = contents(tmp_path / "certs")
    assert lbctl_inside("init", cwd=tmp_path).code == 0
    assert contents(tmp_path / "certs") == before
    check(tmp_path)
    model = config.load(tmp_path / "lb.yaml", {})
    assert model.clients["alice"].serials == (made.alice.serial,)
    assert model.clients["alice"].apps == ("hello",)
    assert model.clients["mallory"].serials == (made.mallory.serial,)
    assert model.clients["mallory"].disabled
    assert model.apps["hello"].listen == "127.0.0.1:8443"


def test_a_ca_of_ones_own_gets_a_server_and_names_its_clients(tmp_path: Path) -> None:
    create_ca(tmp_path / "certs", "payments CA")
    for name in ("zoe", "true"):
        assert lbctl_inside("cert", "issue", name, cwd=tmp_path).code == 0
    ca = (tmp_path / "certs" / "ca.pem").read_bytes()
    ran = lbctl_inside("init", cwd=tmp_path)
    assert ran.code == 0
    assert "your CA, kept; new certificate: server" in ran.out
    assert (tmp_path / "certs" / "ca.pem").read_bytes() == ca
    check(tmp_path)
    assert set(config.load(tmp_path / "lb.yaml", {}).clients) == {"zoe", "true"}


def test_a_ca_without_clients_is_a_warning_and_no_error(tmp_path: Path) -> None:
    create_ca(tmp_path / "certs")
    assert lbctl_inside("init", cwd=tmp_path).code == 0
    ran = lbctl_inside("check", cwd=tmp_path)
    assert ran.code == 0
    assert "apps.hello: no client may use it" in ran.err


def test_another_folder(tmp_path: Path) -> None:
    ran = lbctl_inside("init", "sub/dir", cwd=tmp_path)
    assert ran.code == 0
    assert "lbctl check -c sub/dir/lb.yaml" in ran.out
    assert lbctl_inside("check", "-c", "sub/dir/lb.yaml", cwd=tmp_path).code == 0
    check(tmp_path / "sub" / "dir")


def test_commands_to_paste_are_quoted(tmp_path: Path) -> None:
    ran = lbctl_inside("init", "a b", cwd=tmp_path)
    assert ran.code == 0
    assert "  lbctl run -c 'a b/lb.yaml'\n" in ran.out
    assert " --cert 'a b/certs/alice.pem' " in ran.out


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "lb.yaml").write_text("ours")
    ran = lbctl_inside("init", cwd=tmp_path)
    assert ran.code == 1
    assert ran.err == "lbctl: error: lb.yaml exists already; it was not touched\n"
    assert contents(tmp_path) == {"lb.yaml": b"ours"}
    assert not (tmp_path / "certs").exists()


def test_a_schema_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "lb.schema.json").write_text("{}")
    assert lbctl_inside("init", cwd=tmp_path).code == 0
    assert (tmp_path / "lb.schema.json").read_text() == "{}"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = lbctl_inside("init", "file/sub", cwd=tmp_path)
    assert ran.code == 1
    assert ran.err.startswith("lbctl: error: cannot create the folder file/sub: ")


@pytest.mark.parametrize("demo", [True, False])
def test_the_curl_lines_mean_what_they_say(tmp_path: Path, keep: Callable[[Any], Any], demo: bool) -> None:
    """The data plane with what the file says: alice gets through, mallory does not."""
    if demo:
        demo_certificates(tmp_path / "certs")
    assert lbctl_inside("init", cwd=tmp_path).code == 0
    model = config.load(tmp_path / "lb.yaml", {})
    assert model.tls is not None
    clients = {serial: client for client in model.clients.values() for serial in client.serials}

    def authorize(peer: lbcore.PeerCertificate, app: str) -> lbcore.Verdict:
        client = clients[peer.serial]
        if client.disabled or app not in client.apps:
            return lbcore.Verdict(False, reason="client_disabled")
        return lbcore.Verdict(True, client="alice")

    upstream = keep(Upstream())
    tls = lbcore.ServerTLS(cert=model.tls.cert, key=model.tls.key, client_ca=model.tls.client_ca)
    engine = lbcore.Engine(workers=1)
    engine.start()
    try:
        app = lbcore.Application("hello", [lbcore.UpstreamServer(upstream.address)])
        port = engine.listen(app, "127.0.0.1:0", tls=tls, authorize=authorize).port

        def probe(name: str) -> int:
            return lbctl_inside(
                "probe", f"localhost:{port}", "--ca", "certs/ca.pem", "--cert", f"certs/{name}.pem",
                "--key", f"certs/{name}.key", "--wait", "0.5" if name == "alice" else "10", cwd=tmp_path,
            ).code  # fmt: skip

        assert probe("alice") == 0
        if demo:
            assert probe("mallory") == 75
    finally:
        engine.stop()
