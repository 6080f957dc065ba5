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
from collections.abc import Iterable, Mapping
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
    return sum(_clock_ns(member) for member in (pid, *descendants(pid, _parents())))


def _clock_ns(pid: int) -> int:
    try:
        return time.clock_gettime_ns(process_clock(pid))
    except OSError as error:  # the kernel says EINVAL for a process that is gone
        raise ProcessLookupError(f"process {pid} is gone") from error


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


def pss_kib(pid: int) -> float:
    """Proportional set size of `pid` and its descendants in KiB: private pages + a share of the rest.

    Raises:
        OSError: a process is gone.
    """
    return sum(_pss_of(member) for member in (pid, *descendants(pid, _parents())))


def _pss_of(pid: int) -> int:
    return parse_pss(Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())


def parse_pss(lines: Iterable[str]) -> int:
    """The Pss line of a smaps_rollup, in KiB.

    Raises:
        ValueError: there is none.
    """
    for line in lines:
        if match := re.fullmatch(r"Pss:\s+(\d+) kB", line.strip()):
            return int(match[1])
    raise ValueError("no Pss line in smaps_rollup")
