"""Leaks of native code, as a plugin of pytest: asks LeakSanitizer while the interpreter is still there.

At exit an interpreter frees too little for leaks to mean anything. Before that, whatever is still wanted can
be reached from somewhere, and the rest is lost: what a stopped engine left behind, too. The interpreter and
other people's modules lose a few objects of their own, so only memory counts that lbcore's code or a TLS
library took. A Python object counts if the stack of whoever took it reaches back to lbcore's code, which it
often does not: the interpreter keeps no frame pointers.

A leak is planted at the start and every look must find it: one that sees nothing does not pass for a clean
run.

As a program it looks for the planted leak only, and LeakSanitizer says on stderr if it cannot work: it stops
the process and reads its memory (ptrace), which not every kernel and container allows, and ends it if it may
not.
"""

from __future__ import annotations

import ctypes
import gc
import os
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Generator
from pathlib import Path

import pytest

#: Modules below it are lbcore's and the tests' own. `.ci/sanitize` keeps other people's elsewhere.
ROOT = Path(__file__).resolve().parents[2]
TLS_LIBRARY = r"\S*/(?:libssl|libcrypto|libs2n|_awscrt)[^/\s]*"
PLANTED = "lbcore_5parts_5cells_name_new"
LEAK = re.compile(
    r"^(?:Direct|Indirect) leak of \d+ byte\(s\) in (\d+) object\(s\) allocated from:\n((?: +#.*\n)+)", re.M
)


# ---- what a report says --------------------------------------------------------------------------


def leaks_in(report: str, root: Path = ROOT) -> Counter[str]:
    """Lost objects that count, by the stack that took them. Each frame of it ends with its module."""
    counts = re.compile(rf"\((?:{re.escape(str(root))}/\S+|{TLS_LIBRARY})\)$", re.M)
    found: Counter[str] = Counter()
    for objects, stack in LEAK.findall(report):
        if counts.search(stack):
            found[stack] += int(objects)
    return found


# ---- asking LeakSanitizer ------------------------------------------------------------------------


def plant() -> None:
    """Loses a cell: taken by lbcore's own code, on a thread whose stack is gone when this returns."""
    from lbcore.parts import cells

    take = ctypes.pythonapi.PyCapsule_GetPointer
    take.restype = ctypes.c_void_p
    take.argtypes = [ctypes.py_object, ctypes.c_char_p]
    name_new = cells.__pyx_capi__["name_new"]
    signature = re.search(rb'"(.+)"', repr(name_new).encode())
    assert signature is not None
    function = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_uint32)(take(name_new, signature[1]))
    thread = threading.Thread(target=function, args=(b"planted", 7))
    thread.start()
    thread.join()


def look(report: str | None = None) -> Counter[str]:
    """Everything that is lost by now and counts; the process's other threads stand still meanwhile.

    Args:
        report: where the sanitizer writes what else it has to say, log_path in its options.

    Raises:
        RuntimeError: it does not see the planted leak.
    """
    runtime = ctypes.CDLL(None)
    gc.collect()
    with tempfile.TemporaryDirectory() as folder:
        runtime.__sanitizer_set_report_path(os.fsencode(f"{folder}/leaks"))
        runtime.__lsan_do_recoverable_leak_check()
        runtime.__sanitizer_set_report_path(os.fsencode(report) if report else None)
        written = [path.read_text(errors="replace") for path in Path(folder).iterdir()]
    found = leaks_in("".join(written))
    if not any(PLANTED in stack for stack in found):
        raise RuntimeError("LeakSanitizer does not see the leak that was planted for it")
    return found


# ---- in a test session ---------------------------------------------------------------------------


class Watch:
    """Fails the session, or with `each` the test, that leaves something behind.

    Args:
        each: look after every test.
    """

    def __init__(self, each: bool) -> None:
        log_path = re.search(r"\blog_path=([^:]+)", os.environ.get("ASAN_OPTIONS", ""))
        self._report = log_path[1] if log_path else None
        self._each = each
        self._lost: Counter[str] = Counter()
        plant()
        self._known = look(self._report)

    def news(self) -> list[str]:
        """What was lost since the last time, ready to be shown."""
        found = look(self._report)
        new = found - self._known
        self._known = found
        return [f"{count} object(s), taken by\n{stack}" for stack, count in new.items()]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, None, None]:
        yield
        if self._each and (lost := self.news()):
            pytest.fail("\n".join(["memory is lost:", *lost]), pytrace=False)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        self._at_end = self.news()
        if self._at_end:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._at_end:
            terminalreporter.section("memory is lost", red=True)
            terminalreporter.write_line("\n".join(self._at_end))
        else:
            terminalreporter.write_line("LeakSanitizer: nothing is lost but what was planted")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--look-after-each", action="store_true", help="for leaks, after every test")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Watch(config.getoption("--look-after-each")))


if __name__ == "__main__":
    plant()
    ctypes.CDLL(None).__lsan_do_recoverable_leak_check()  # if it must end the process, it says so on stderr
    look()
