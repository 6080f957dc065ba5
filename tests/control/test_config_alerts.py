"""The section `alerts`: what its keys demand of each other, and the program it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lbctl.config import Problem, build, check_files, dump, read, read_bytes
from lbctl.errors import ConfigInvalid

HOOK = "https://hooks.internal/lb"
UPSTREAM = '[{address: "127.0.0.2:80"}]'
APPS = f'version: 1\napps:\n  web: {{plaintext: true, listen: "127.0.0.1:1", upstreams: {UPSTREAM}}}\n'


def tree(**alerts: Any) -> dict[str, Any]:
    app = {"listen": "127.0.0.1:1", "plaintext": True, "upstreams": [{"address": "127.0.0.2:80"}]}
    return {"version": 1, "apps": {"web": app}, "alerts": alerts}


def problems(**alerts: Any) -> list[str]:
    with pytest.raises(ConfigInvalid) as found:
        build(tree(**alerts))
    return [f"{problem.path}: {problem.message}" for problem in found.value.problems]


def test_the_defaults() -> None:
    alerts = build(tree(webhook=HOOK)).alerts
    assert alerts is not None
    assert (alerts.command, alerts.ca, alerts.timeout, alerts.min_interval) == (None, None, 10.0, 60.0)
    assert build({**tree(), "alerts": None}).alerts is None


def test_only_the_program_of_a_command_is_a_path(tmp_path: Path) -> None:
    text = APPS + 'alerts: {command: [bin/on-alert, --node, "${NODE}", ""]}\n'
    loaded = read_bytes(text.encode(), "lb.yaml", tmp_path, {"NODE": "lb-1"})
    assert loaded.config.alerts is not None
    assert loaded.config.alerts.command == (f"{tmp_path}/bin/on-alert", "--node", "lb-1", "")
    again = read_bytes(dump(loaded).encode(), "lb.yaml", Path("/elsewhere"), {"NODE": "lb-1"})
    assert again.config == loaded.config
    assert '"${NODE}"' in dump(loaded)


def test_a_program_of_the_environment_starts_from_the_folder_of_the_file(tmp_path: Path) -> None:
    text = APPS + 'alerts: {command: ["${BIN}/on-alert", "${BIN}"]}\n'
    loaded = read_bytes(text.encode(), "lb.yaml", tmp_path, {"BIN": "bin"})
    again = read_bytes(dump(loaded).encode(), "lb.yaml", Path("/elsewhere"), {"BIN": "bin"})
    assert again.config.alerts == loaded.config.alerts
    assert f'"{tmp_path}/${{BIN}}/on-alert"' in dump(loaded)


@pytest.mark.parametrize(
    ("alerts", "problem"),
    [
        ({}, "alerts: needs command, webhook or both"),
        ({"timeout": "5s"}, "alerts: needs command, webhook or both"),
        ({"command": ["/bin/true"], "ca": "ca.pem"}, "alerts.ca: needs webhook beside it"),
        ({"webhook": "http://127.0.0.1/", "ca": "ca.pem"}, "alerts.ca: http does not use it"),
        ({"webhook": "http://hooks.internal/"}, "alerts.webhook: expected https://"),
        ({"webhook": "hooks.internal"}, "alerts.webhook: expected a URL such as https://hooks.internal/lb"),
        ({"webhook": HOOK + "/{serial}"}, "alerts.webhook: expected no braces"),
        ({"webhook": "https://me:secret@hooks.internal/"}, "alerts.webhook: no user or password"),
        ({"command": "/bin/true"}, "alerts.command: expected a list: the program and its arguments"),
        ({"command": []}, "alerts.command: needs at least the program"),
        ({"command": ["", "x"]}, "alerts.command: needs at least the program"),
        ({"command": {"a": 1}}, "alerts.command: expected a list"),
        ({"command": [7]}, "alerts.command.0: expected text; put quotes around it"),
        ({"command": ["/bin/true", 7]}, "alerts.command.1: expected text; put quotes around it"),
        ({"command": ["/bin/true", "a\0"]}, "alerts.command.1: an argument cannot hold a NUL"),
        ({"command": ["/bin/\0true"]}, "alerts.command.0: an argument cannot hold a NUL"),
        ({"webhook": HOOK, "timeout": "0s"}, "alerts.timeout: "),
        ({"webhook": HOOK, "min_interval": 60.0, "every": "1m"}, "alerts.every: unknown key"),
    ],
)
def test_what_cannot_be(alerts: dict[str, Any], problem: str) -> None:
    (found,) = problems(**alerts)
    assert found.startswith(problem)


def test_a_fault_has_its_place(tmp_path: Path) -> None:
    text = APPS + "alerts:\n  command: [/bin/true, 7]\n"
    with pytest.raises(ConfigInvalid) as found:
        read_bytes(text.encode(), "lb.yaml", tmp_path, {})
    assert [(problem.line, problem.column) for problem in found.value.problems] == [(5, 24)]


def checked(folder: Path, alerts: str) -> Problem:
    (folder / "lb.yaml").write_text(f"{APPS}alerts:\n  {alerts}\n")
    (found,) = check_files(read(folder / "lb.yaml", {}))
    assert found.severity == "error"
    return found


def test_a_program_must_be_there_and_executable(tmp_path: Path) -> None:
    program = tmp_path / "on-alert"
    found = checked(tmp_path, "command: [on-alert, x]")
    assert found.message == f"cannot run {program}: No such file or directory"
    assert (found.path, found.line, found.column) == ("alerts.command.0", 5, 13)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o644)
    assert f"run: chmod +x {program}" in checked(tmp_path, "command: [on-alert]").message
    program.chmod(0o755)
    assert check_files(read(tmp_path / "lb.yaml", {})) == []
    assert checked(tmp_path, "command: [.]").message.endswith("not a regular file")


def test_the_ca_of_the_webhook_is_checked(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    found = checked(tmp_path, f"{{webhook: {HOOK!r}, ca: ca.pem}}")
    assert (found.path, found.line) == ("alerts.ca", 5)
    assert "no usable certificate in PEM" in found.message
