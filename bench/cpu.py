"""What a proxy process costs: CPU time in nanoseconds and memory in KiB.

CPU comes from the kernel's process CPU-time clock (`clock_gettime` with the clock of another
process, what `clock_getcpuclockid(3)` returns). It is the one counter that has all three properties
a short run needs: nanoseconds instead of the 10 ms ticks of /proc/PID/stat, every thread instead of
the main one of /proc/PID/schedstat, and threads that have already exited, which a sum over
/proc/PID/task loses. User and system time are both in it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path

_CPUCLOCK_SCHED = 2  # linux: user + system, from the scheduler's own nanosecond accounting


def process_clock(pid: int) -> int:
    """The id of the CPU-time clock of process `pid`, as clock_getcpuclockid(3) makes it."""
    return (~pid << 3) | _CPUCLOCK_SCHED


def cpu_ns(pid: int) -> int:
    """CPU time used so far by `pid` and its living descendants, user + system, in nanoseconds.

    Raises:
        ProcessLookupError: there is no such process.
    """
    return sum(_clock_ns(member) for member in family(pid))


def _clock_ns(pid: int) -> int:
    try:
        return time.clock_gettime_ns(process_clock(pid))
    except OSError as error:  # the kernel says EINVAL for a process that is gone
        raise ProcessLookupError(f"process {pid} is gone") from error


def family(pid: int) -> list[int]:
    """`pid` and every process below it."""
    return [pid, *descendants(pid, _parents())]


def descendants(pid: int, parents: Mapping[int, int]) -> list[int]:
    """Every process below `pid`, given each process's parent: a proxy may fork its workers."""
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [below for child in children for below in descendants(child, parents)]


def _parents() -> dict[int, int]:
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            found[int(stat.parent.name)] = parse_parent(stat.read_text(errors="replace"))
        except OSError:
            continue  # it ended between the listing and the read
    return found


def parse_parent(stat: str) -> int:
    """The parent's pid out of /proc/PID/stat; the command name in it may hold spaces and brackets."""
    return int(stat.rpartition(")")[2].split()[1])


def settle(pid: int, quiet: float = 0.05, at_most: float = 1.0) -> None:
    """Wait until the process is nearly idle, so that work still owed (closes, log lines) is counted.

    Args:
        quiet: seconds it has to stay below 2 % of one CPU.
        at_most: seconds after which waiting ends in any case.
    """
    deadline = time.monotonic() + at_most
    before = cpu_ns(pid)
    while time.monotonic() < deadline:
        time.sleep(quiet)
        now = cpu_ns(pid)
        if now - before < quiet * 0.02 * 1e9:
            return
        before = now


_NOT_FILES = ("Pss_Anon", "Pss_Shmem", "SwapPss")


def memory_kib(pid: int) -> int:
    """Proportional set size of `pid` and its descendants in KiB, swapped pages included.

    Pages of files are left out: no connection adds any, while their share moves by megabytes whenever
    another program maps the same library, or the kernel drops a page that nobody looked at lately.

    Raises:
        OSError: a process is gone.
    """
    return sum(_memory_of(member) for member in family(pid))


def _memory_of(pid: int) -> int:
    return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())


def parse_rollup(text: str) -> int:
    """Anonymous, shared and swapped PSS out of a smaps_rollup, in KiB.

    Raises:
        ValueError: one of them is not in it.
    """
    sizes = {name: int(kib) for name, kib in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    missing = [name for name in _NOT_FILES if name not in sizes]
    if missing:
        raise ValueError(f"no {missing[0]} in smaps_rollup")
    return sum(sizes[name] for name in _NOT_FILES)
