"""Runs `counted` under callgrind, and makes costs of what that wrote down."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lbcore

from ..micro.compiled import ROOT, loops
from . import profile
from .budget import Cost
from .counted import PATHS, HotPath, Loop
from .profile import Function, Profile

TIMEOUT = 900  # seconds; on a machine that is not busy it takes half a minute
SYSTEM_CALLS = frozenset({
    "accept", "accept4", "bind", "clock_gettime", "close", "connect", "epoll_create1", "epoll_ctl",
    "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd", "fcntl", "getpeername", "getrandom",
    "getsockname", "getsockopt", "ioctl", "listen", "madvise", "mmap", "mprotect", "munmap", "pipe",
    "pipe2", "poll", "ppoll", "pread64", "pwrite64", "read", "readv", "recv", "recvfrom", "recvmmsg",
    "recvmsg", "send", "sendfile", "sendmmsg", "sendmsg", "sendto", "setsockopt", "shutdown", "socket",
    "splice", "syscall", "tee", "vmsplice", "write", "writev",
})  # fmt: skip
ALLOCATIONS = frozenset({
    "aligned_alloc", "calloc", "free", "malloc", "memalign", "posix_memalign", "realloc", "reallocarray",
    "strdup",
})  # fmt: skip
_WAIT = "epoll_wait"
_GLIBC = re.compile(r"^(__)?(libc_)?")


class CannotCount(Exception):
    """In one sentence, with what to do."""


@dataclass(frozen=True)
class Spent:
    """Where one unit of a path spends: for whoever wants to make it cheaper.

    Attributes:
        cost: what goes into the budget.
        tls_library: instructions of the TLS library, which no budget holds.
        functions: the dearest of lbcore's first: (name, instructions).
        lines: the same by line of the source: ("legs.pyx:51", instructions).
    """

    cost: Cost
    tls_library: float
    functions: tuple[tuple[str, float], ...]
    lines: tuple[tuple[str, float], ...]


def architecture() -> str:
    return platform.machine()


def tools(valgrind: str) -> dict[str, str]:
    """What the numbers depend on, besides the source: read from the compiled core, where it says so.

    Raises:
        CannotCount: there is no compiled core, or no awscrt, or valgrind does not say its version.
    """
    try:
        code = (_core() / f"worker{_suffix()}").read_bytes()
        awscrt = importlib.metadata.version("awscrt")
    except (OSError, importlib.metadata.PackageNotFoundError) as problem:
        raise CannotCount(f"nothing to count: {problem}") from problem
    compiler = re.search(rb"GCC: \([^)]*\) ([\d.]+)|(clang version [\d.]+)", code)
    cython = re.search(rb"__Pyx_Import[A-Za-z]+_(\d+_\d+\w*)", code)
    return {
        "awscrt": awscrt,
        "compiler": "unknown" if compiler is None else _compiler_name(compiler),
        "cython": "unknown" if cython is None else cython[1].decode().replace("_", "."),
        "valgrind": _output([valgrind, "--version"]).strip().removeprefix("valgrind-"),
    }


def _compiler_name(found: re.Match[bytes]) -> str:
    return f"gcc {found[1].decode()}" if found[1] else found[2].decode()


def find_valgrind() -> str:
    """Raises CannotCount: it is not here."""
    found = shutil.which("valgrind")
    if found is None:
        raise CannotCount("valgrind is not installed (Debian: apt-get install valgrind)")
    return found


def count(valgrind: str, keys: Sequence[str]) -> dict[str, Spent]:
    """All paths, or those that are named.

    Raises:
        CannotCount: the compiler or the script failed.
    """
    try:
        loops()  # compiled here, and not under valgrind
    except RuntimeError as problem:
        raise CannotCount(str(problem)) from problem
    with tempfile.TemporaryDirectory(prefix="instructions-") as name:
        folder = Path(name)
        environment = {**os.environ, "LD_PRELOAD": str(_steps(folder)), "PYTHONHASHSEED": "0"}
        command = [
            valgrind, "-q", "--tool=callgrind", "--instr-atstart=no", "--cache-sim=no",
            f"--callgrind-out-file={folder / 'out'}",
            sys.executable, "-m", "bench.instructions.counted", *keys,
        ]  # fmt: skip
        _output(command, environment)
        batches = [profile.read(path) for path in sorted(folder.glob("out.*"))]
    return costs(batches, _core(), _tls_library())


def costs(batches: Iterable[Profile], core: Path, tls_library: Path | None) -> dict[str, Spent]:
    """One for each path, in the order of PATHS."""
    by_name: dict[str, list[Profile]] = defaultdict(list)
    for batch in batches:
        by_name[batch.name].append(batch)
    return {path.key: _cost(path, by_name[path.key], core, tls_library)
            for path in PATHS if path.key in by_name}  # fmt: skip


def _cost(path: HotPath | Loop, batches: Sequence[Profile], core: Path, tls_library: Path | None) -> Spent:
    """The least of the batches: a packet that comes late, or a look at the memory that is due every some
    connections, makes one of them dearer, and nothing makes one cheaper."""

    def own(function: Function) -> bool:
        return core in Path(function.object).parents

    cheapest = min(batches, key=lambda batch: sum(n for f, n in batch.spent.items() if own(f)))
    functions: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    for function, spent in cheapest.spent.items():
        if own(function):
            functions[_shown(function)] += spent
    for (function, file, line), spent in cheapest.lines.items():
        if own(function):
            lines[f"{Path(file).name}:{line}"] += spent
    foreign = sum(n for f, n in cheapest.spent.items() if tls_library and Path(f.object) == tls_library)
    calls = least([_calls(path, batch, own) for batch in batches])
    return Spent(
        Cost(
            path.unit,
            round(functions.total() / path.units, 1),
            {name: round(count / path.units, 2) for name, count in calls.items()},
        ),
        foreign / path.units,
        tuple((name, spent / path.units) for name, spent in functions.most_common()),
        tuple((line, spent / path.units) for line, spent in lines.most_common()),
    )


def _calls(path: HotPath | Loop, batch: Profile, own: Callable[[Function], bool]) -> Counter[str]:
    """From lbcore to libc, or to what is preloaded in its place."""
    found: Counter[str] = Counter()
    for (caller, callee), count in batch.calls.items():
        name = _GLIBC.sub("", callee.name)
        if own(caller) and not own(callee) and name in SYSTEM_CALLS | ALLOCATIONS:
            found[name] += count
    if isinstance(path, HotPath):
        found[_WAIT] -= 1  # counting begins inside of a wait, which callgrind takes for a call of its own
    return found


def least(counts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """Of each name the least; 0 is not mentioned."""
    names = sorted({name for one in counts for name in one})
    found = {name: min(one.get(name, 0) for one in counts) for name in names}
    return {name: count for name, count in found.items() if count > 0}


def _shown(function: Function) -> str:
    """`path.forward.watch` for what Cython calls `__pyx_f_6lbcore_4path_7forward_watch`."""
    name = function.name.removeprefix("__pyx_f_").removeprefix("6lbcore_")
    words = []
    while found := re.match(r"(\d+)_?", name):
        length = int(found[1])
        at = len(found[1])
        words.append(name[at : at + length])
        name = name[at + length + 1 :]
    return ".".join([*words, name])


def _steps(folder: Path) -> Path:
    """steps.c, compiled."""
    made = folder / "steps.so"
    compiler = (os.environ.get("CC") or "cc").split()
    source = Path(__file__).with_name("steps.c")
    _output([*compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(made), str(source), "-ldl"])
    return made


def _output(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCount(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise CannotCount(f"{command[0]} ended with {done.returncode}:\n{done.stdout[-4000:]}")
    return done.stdout


def _core() -> Path:
    assert lbcore.__file__ is not None
    return Path(lbcore.__file__).resolve().parent


def _suffix() -> str:
    return importlib.machinery.EXTENSION_SUFFIXES[0]


def _tls_library() -> Path | None:
    found = importlib.util.find_spec("_awscrt")
    return Path(found.origin).resolve() if found is not None and found.origin else None
