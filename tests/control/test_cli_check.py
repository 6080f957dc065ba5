"""`lbctl check`."""

from __future__ import annotations

from pathlib import Path

import pytest
from kit.commands import lbctl_inside

import lbcore
from lbctl.certificates import Purpose, create_ca, issue

GOOD = """\
version: 1
tls: {cert: certs/server.pem, key: certs/server.key, client_ca: certs/ca.pem}
apps:
  web:
    listen: 127.0.0.1:8443
    upstreams: [{address: "127.0.0.1:80"}]
clients:
  alice: {serials: ["10:01"], apps: [web]}
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A file without errors."""
    file = tmp_path / "lb.yaml"
    file.write_text(GOOD)
    create_ca(tmp_path / "certs")
    issue(tmp_path / "certs", "server", Purpose.SERVER)
    return file


def test_all_is_well(good: Path) -> None:
    ran = lbctl_inside("check", cwd=good.parent)
    assert (ran.code, ran.out, ran.err) == (0, "lb.yaml: ok (1 app, 1 client)\n", "")
    assert lbctl_inside("check", "--strict", "-c", good).code == 0


def test_every_error_with_its_place(good: Path) -> None:
    good.write_text(good.read_text().replace("listen:", "lisen:").replace(":80", ""))
    ran = lbctl_inside("check", cwd=good.parent)
    assert ran.code == 1
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert lines[:3] == [
        "lb.yaml:4:3: error: apps.web.listen: missing; it has no default",
        "    4 |   web:",
        "      |   ^",
    ]
    assert "lb.yaml:5:5: error: apps.web.lisen: unknown key; did you mean 'listen'?" in lines
    assert "lb.yaml:6:27: error: apps.web.upstreams.0.address: expected HOST:PORT" in lines
    assert lines[-1] == "3 errors."


def test_an_engine_that_was_not_compiled(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good.write_text(good.read_text().replace("tls: {", "tls: {engine: openssl, "))
    compiled = {"s2n": "s2n-tls"}
    with monkeypatch.context() as patched:
        patched.setattr(lbcore, "tls_engines", lambda: compiled)
        ran = lbctl_inside("check", cwd=good.parent)
        assert ran.code == 1
        assert "lb.yaml:2:15: error: tls.engine: this build has no openssl; write s2n, or install" in ran.err
        compiled["openssl"] = "3.0"
        assert lbctl_inside("check", cwd=good.parent).code == 0


def test_certificates_are_looked_at(good: Path) -> None:
    good.write_text(good.read_text().replace("server.pem", "absent.pem"))
    ran = lbctl_inside("check", cwd=good.parent)
    assert ran.code == 1
    assert "lb.yaml:2:13: error: tls.cert: cannot read " in ran.err
    assert ran.err.endswith("1 error.\n")


def test_warnings_count_under_strict_only(good: Path) -> None:
    good.write_text(good.read_text().replace("apps: [web]", "apps: [web, web]"))
    ran = lbctl_inside("check", cwd=good.parent)
    assert ran.code == 0
    assert "warning: clients.alice.apps.1: 'web' is listed twice" in ran.err
    assert ran.err.endswith("1 warning.\n")
    assert ran.out == "lb.yaml: ok (1 app, 1 client)\n"
    assert lbctl_inside("check", "--strict", cwd=good.parent).code == 1


def test_json_is_the_same_for_programs(good: Path) -> None:
    said = lbctl_inside("check", "--json", cwd=good.parent).json()
    assert said == {"file": "lb.yaml", "ok": True, "errors": 0, "warnings": 0, "problems": []}
    good.write_text(good.read_text().replace("[web]", "[wob]"))
    ran = lbctl_inside("check", "--json", cwd=good.parent)
    assert ran.code == 1
    assert ran.err == ""
    said = ran.json()
    assert not said["ok"]
    assert said["errors"] == 1
    problem = said["problems"][0]
    assert (problem["file"], problem["line"], problem["path"]) == ("lb.yaml", 8, "clients.alice.apps.0")


def test_json_under_strict(good: Path) -> None:
    good.write_text(good.read_text().replace("apps: [web]", "apps: [web, web]"))
    assert lbctl_inside("check", "--json", cwd=good.parent).json()["ok"]
    ran = lbctl_inside("check", "--json", "--strict", cwd=good.parent)
    assert ran.code == 1
    assert not ran.json()["ok"]
    assert ran.json()["warnings"] == 1


def test_print_reads_back_as_the_same(good: Path) -> None:
    printed = lbctl_inside("check", "--print", cwd=good.parent)
    assert printed.code == 0
    assert "  drain_timeout: 30s\n" in printed.out
    (good.parent / "again.yaml").write_text(printed.out)
    again = lbctl_inside("check", "--print", "-c", "again.yaml", cwd=good.parent)
    assert again.out == printed.out


def test_origins_and_overrides(good: Path) -> None:
    ran = lbctl_inside(
        "check", "--origin", "--set", "node.drain_timeout=10s", "--set", "node.workers=3",
        cwd=good.parent, environ={"LBCTL_SET__node__name": "lb-7"},
    )  # fmt: skip
    assert ran.code == 0
    pairs = [line.split("#") for line in ran.out.splitlines() if "#" in line]
    rows = {value.strip(): origin.strip() for value, origin in pairs}
    assert rows["drain_timeout: 10s"] == "--set node.drain_timeout"
    assert rows["workers: 3"] == "--set node.workers"
    assert rows["name: lb-7"] == "environment LBCTL_SET__node__name"
    assert rows['listen: 127.0.0.1:8443'] == "lb.yaml:5"
    assert rows["max_unauthenticated: 4096"] == "default"


def test_an_override_that_is_wrong(good: Path) -> None:
    ran = lbctl_inside("check", "--set", "node.workers=many", cwd=good.parent)
    assert ran.code == 1
    assert ran.err.startswith("--set node.workers: error: node.workers: expected auto or a whole number")


def test_print_and_json_exclude_each_other(good: Path) -> None:
    for option in ("--print", "--origin"):
        ran = lbctl_inside("check", option, "--json", cwd=good.parent)
        assert ran.code == 64
        assert "exclude each other" in ran.err


def test_secrets_of_the_environment_are_not_printed(good: Path) -> None:
    good.write_text(good.read_text() + "node: {name: '${SECRET_NAME}'}\n")
    ran = lbctl_inside("check", "--print", cwd=good.parent, environ={"SECRET_NAME": "hunter2"})
    assert ran.code == 0
    assert "hunter2" not in ran.out
    assert '"${SECRET_NAME}"' in ran.out


def test_the_environment_names_the_file(good: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ran = lbctl_inside("check", cwd=tmp_path / "empty", environ={"LBCTL_CONFIG": str(good)})
    assert ran.out == f"{good}: ok (1 app, 1 client)\n"


@pytest.mark.skipif(Path("/etc/lbctl/lb.yaml").exists(), reason="this machine has a configuration")
def test_no_configuration_anywhere(tmp_path: Path) -> None:
    ran = lbctl_inside("check", cwd=tmp_path)
    assert ran.code == 1
    assert "looked for --config, $LBCTL_CONFIG, ./lb.yaml, /etc/lbctl/lb.yaml" in ran.err
    assert "lbctl init" in ran.err
    ran = lbctl_inside("check", "--json", cwd=tmp_path)
    assert ran.code == 1
    assert ran.json()["file"] is None
    assert ran.json()["errors"] == 1


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_named_file_that_is_missing(tmp_path: Path, good: Path, how: str) -> None:
    """The ./lb.yaml that is there never stands in for it."""
    options = ["-c", "absent.yaml"] if how == "option" else []
    environ = {"LBCTL_CONFIG": "absent.yaml"} if how == "environment" else {}
    ran = lbctl_inside("check", *options, cwd=good.parent, environ=environ)
    assert ran.code == 1
    assert ran.err.startswith("error: absent.yaml: no such file (named by ")
