"""Command: an alert on the standard input of a program. Real programs."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.alerting import program, written
from kit.processes import no_child_left, runs
from kit.waiting import PATIENCE, wait_until

from lbctl.alerts.command import Command
from lbctl.alerts.hook import NotDelivered
from lbctl.interrupt import Interrupt

BEGUN = 2.0  # seconds, in which a program has surely begun
ALERT = b'{"v":1,"alert":"app_down"}'


@pytest.fixture(autouse=True)
def no_zombie() -> Iterator[None]:
    yield
    assert no_child_left()


def deliver(*arguments: str, alert: bytes = ALERT, timeout: float = PATIENCE) -> None:
    Command(arguments, timeout).deliver(alert, Interrupt())


def failure(*arguments: str, timeout: float = PATIENCE) -> NotDelivered:
    with pytest.raises(NotDelivered) as caught:
        deliver(*arguments, timeout=timeout)
    return caught.value


def test_it_gets_the_alert_and_its_arguments(tmp_path: Path) -> None:
    path = program(tmp_path / "hook", "open(out, 'w').write(repr(sys.argv[1:]) + sys.stdin.read())")
    deliver(path, "--node", "a b; $(c)", "")
    assert written(path) == "['--node', 'a b; $(c)', '']" + ALERT.decode() + "\n"


def test_it_gets_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("LANG", "C.UTF-8")
    code = """
import json
fds = sorted(int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd))
state = {'env': dict(os.environ), 'fds': fds, 'cwd': os.getcwd(), 'group': os.getpgid(0) == os.getpid(),
         'stdout': os.readlink('/proc/self/fd/1')}
json.dump(state, open(out, 'w'))
"""
    path = program(tmp_path / "hook", code)
    inheritable = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    try:
        deliver(path)
    finally:
        os.close(inheritable)
    state = json.loads(written(path))
    assert state["env"].pop("PATH") == os.environ["PATH"]
    state["env"].pop("LC_CTYPE", None)  # Python's own
    assert state == {
        "env": {"LANG": "C.UTF-8"}, "fds": [0, 1, 2], "cwd": "/", "group": True, "stdout": "/dev/null"
    }  # fmt: skip


def test_one_that_fails(tmp_path: Path) -> None:
    failed = failure(program(tmp_path / "hook", "echo '  no \x1b[31mroute' >&2\nexit 3", shell=True))
    assert (failed.problem, failed.details) == ("exit status 3", {"stderr": "no \\x1b[31mroute"})


def test_one_that_dies(tmp_path: Path) -> None:
    failed = failure(program(tmp_path / "hook", "kill -TERM $$", shell=True))
    assert (failed.problem, failed.details) == ("killed by SIGTERM", {})


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_one_that_floods(tmp_path: Path, stream: str) -> None:
    """Neither a pipe that fills up nor memory that does."""
    code = f"sys.{stream}.write('größe\\n' * 2_000_000)\nsys.exit(1)"
    failed = failure(program(tmp_path / "hook", code), timeout=3 * PATIENCE)
    assert failed.problem == "exit status 1"
    assert len(failed.details.get("stderr", "")) == (200 if stream == "stderr" else 0)


def test_one_that_floods_for_ever_is_ended(tmp_path: Path) -> None:
    failed = failure(program(tmp_path / "hook", "exec yes >&2", shell=True), timeout=BEGUN)
    assert failed.problem == f"not done within {BEGUN:g} s; killed"
    assert failed.details["stderr"].startswith("y\\ny\\n")


def test_one_that_does_not_read(tmp_path: Path) -> None:
    path = program(tmp_path / "hook", "exec <&-\ntouch $out", shell=True)
    deliver(path, alert=b"x" * 1_000_000)


def test_one_that_reads_slowly_gets_all_of_it(tmp_path: Path) -> None:
    path = program(tmp_path / "hook", "open(out, 'w').write(str(len(sys.stdin.buffer.read())))")
    deliver(path, alert=b"x" * 1_000_000)
    assert written(path) == "1000001"


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    code = (
        "trap '' TERM\nsleep 1000 &\nchild=$!\n(sleep 1000 & echo $! $$ >>$out; wait) &\necho $child >>$out"
    )
    path = program(tmp_path / "hook", f"{code}\nwait", shell=True)
    began = time.monotonic()
    assert failure(path, timeout=BEGUN).problem == f"not done within {BEGUN:g} s; killed"
    assert time.monotonic() - began < BEGUN + PATIENCE / 2
    pids = [int(pid) for pid in written(path).split()]
    assert len(pids) == 3
    wait_until(lambda: not any(map(runs, pids)), f"the end of {pids}")


def test_a_child_that_holds_the_pipe_does_not_hold_us(tmp_path: Path) -> None:
    """It goes on by itself: the program that started it said that all is well."""
    path = program(tmp_path / "hook", "sleep 1000 &\necho $! >$out", shell=True)
    deliver(path)
    pid = int(written(path))
    try:
        assert runs(pid)
    finally:
        os.kill(pid, 9)


def test_one_that_cannot_be_run(tmp_path: Path) -> None:
    assert failure(str(tmp_path / "absent")).problem == "cannot run it: No such file or directory"
    text = tmp_path / "text"
    text.write_text("x")
    assert failure(str(text)).problem == "cannot run it: Permission denied"
    text.chmod(0o755)
    assert failure(str(text)).problem == "cannot run it: Exec format error"


def test_it_is_called_off(tmp_path: Path) -> None:
    path = program(tmp_path / "hook", "echo $$ >$out\nexec sleep 1000", shell=True)
    interrupt = Interrupt()

    def call_off() -> None:
        wait_until(lambda: written(path).endswith("\n"), "it runs")
        interrupt.set()

    thread = threading.Thread(target=call_off)
    thread.start()
    with pytest.raises(NotDelivered):
        Command([path], 1000.0).deliver(ALERT, interrupt)
    thread.join()
    assert not runs(int(written(path)))
    with pytest.raises(NotDelivered, match="given up"):
        Command([path], 1000.0).deliver(ALERT, interrupt)
