"""The frame of the command line: exit codes, errors without tracebacks, and commands loaded on use."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit.commands import lbctl_command
from kit.daemon import environment
from kit.waiting import PATIENCE

import lbcore
from lbctl.cli.commands import COMMANDS, lbctl


def test_version() -> None:
    ran = lbctl_command("version")
    assert ran.code == 0
    assert ran.out.startswith("lbctl ")
    assert f"python {sys.version.split()[0]}" in ran.out
    assert f"tls s2n: {lbcore.tls_engines()['s2n']}" in ran.out
    assert lbctl_command("version", "--json").json()["tls_engines"] == lbcore.tls_engines()
    assert lbctl_command("--version").out.splitlines() == ran.out.splitlines()[:1]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["version"]])
def test_quick_commands_load_nothing_slow(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom lbctl.cli import main\n"
        f"try: main({arguments!r})\n"
        "finally: print(sorted({'pydantic', 'yaml', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(), capture_output=True, text=True, timeout=40, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_is_there(name: str) -> None:
    help_ = CliRunner().invoke(lbctl, [name, "--help"], prog_name="lbctl")
    assert help_.exit_code == 0, help_.output
    assert help_.output.startswith(f"Usage: lbctl {name} ")


def test_help_lists_them_all() -> None:
    ran = lbctl_command("--help")
    assert ran.code == 0
    for name, entry in COMMANDS.items():
        assert f"  {name} " in ran.out
        assert entry.summary.split()[0] in ran.out


@pytest.mark.parametrize(
    "line", ["nope", "--nope", "check --nope", "probe", "cert issue", "cert init --days 0"]
)
def test_a_command_line_that_makes_no_sense(line: str, tmp_path: Path) -> None:
    ran = lbctl_command(*line.split(), cwd=tmp_path)
    assert ran.code == 64
    assert ran.err.startswith("Usage: lbctl")
    assert ran.out == ""


def test_a_whole_life(tmp_path: Path) -> None:
    """Every exit code and both streams through real processes."""
    assert lbctl_command("init", cwd=tmp_path).code == 0
    checked = lbctl_command("check", cwd=tmp_path)
    assert (checked.code, checked.out, checked.err) == (0, "lb.yaml: ok (1 app, 1 client)\n", "")
    issued = lbctl_command("cert", "issue", "bob", cwd=tmp_path)
    assert (issued.code, issued.err) == (0, "")
    (tmp_path / "lb.yaml").write_text("apps: {}\n")
    checked = lbctl_command("check", cwd=tmp_path)
    assert (checked.code, checked.out) == (1, "")
    assert checked.err.startswith("lb.yaml:1:1: error: version: missing")
    assert lbctl_command("run", cwd=tmp_path).code == 78
    assert lbctl_command("run", "-c", "absent.yaml", cwd=tmp_path).code == 78


def test_a_failure_is_one_sentence(tmp_path: Path) -> None:
    ran = lbctl_command("cert", "show", "absent.pem", cwd=tmp_path)
    assert ran.code == 1
    assert ran.err == "lbctl: error: cannot read absent.pem: No such file or directory\n"


def test_names_cannot_play_with_the_terminal(tmp_path: Path) -> None:
    ran = lbctl_command("cert", "show", "a\x1b[2Jb\nc", cwd=tmp_path)
    assert ran.code == 1
    assert ran.err == "lbctl: error: cannot read a\\x1b[2Jb\\nc: No such file or directory\n"


def test_text_the_terminal_cannot_show_is_no_crash(tmp_path: Path) -> None:
    ran = lbctl_command("cert", "show", "ж.pem", cwd=tmp_path, environ={"PYTHONIOENCODING": "latin-1"})
    assert ran.code == 1
    assert "cannot read \\u0436.pem" in ran.err


def test_nobody_reads_to_the_end() -> None:
    reader, writer = socket.socketpair()
    reader.close()
    with writer:
        done = subprocess.run(
            [sys.executable, "-m", "lbctl", "schema"],
            env=environment(), stdin=subprocess.DEVNULL, stdout=writer.fileno(), stderr=subprocess.PIPE,
            text=True, timeout=40, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == ""


def test_a_full_disk_is_one_sentence() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "lbctl", "schema"],
            env=environment(), stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=40, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "lbctl: error: cannot write: No space left on device\n"


@pytest.mark.parametrize("closed", [1, 2])
def test_a_stream_may_be_closed_from_the_start(closed: int) -> None:
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m lbctl version {closed}>&-', sys.executable],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("lbctl") is (closed == 2)


def test_ctrl_c_ends_quietly(keep: Callable[[socket.socket], socket.socket]) -> None:
    silent = keep(socket.create_server(("127.0.0.1", 0)))
    silent.settimeout(PATIENCE)
    port = silent.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "lbctl", "probe", f"127.0.0.1:{port}", "--timeout", "30"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        keep(silent.accept()[0])  # it is in the middle of its work
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait(PATIENCE)
    assert process.returncode == 130
    assert (out, err.strip()) == ("", "")


def test_the_schema_is_one_json_document() -> None:
    ran = lbctl_command("schema")
    assert ran.code == 0
    assert json.loads(ran.out)["title"] == "lbctl configuration"
    assert lbctl_command("schema", "--json").out == ran.out
