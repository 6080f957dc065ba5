"""What a process costs: CPU time and memory, out of the kernel."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import cpu


def test_cpu_counts_threads_that_are_gone() -> None:
    burn = "import threading, time, sys\nend = time.thread_time\n"
    burn += "def work():\n    while end() < 0.2: pass\n"
    burn += "t = threading.Thread(target=work); t.start(); t.join(); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert cpu.cpu_ns(process.pid) >= 0.2e9
        assert cpu.memory_kib(process.pid) > 0
        process.communicate()
    with pytest.raises(ProcessLookupError):
        cpu.cpu_ns(process.pid)


def test_parent_is_found_behind_any_command_name() -> None:
    assert cpu.parse_parent("42 (a) b (c)) S 7 42 42 0") == 7


def test_descendants_are_all_below_and_only_those() -> None:
    parents = {2: 1, 3: 2, 4: 3, 5: 1, 6: 5}
    assert sorted(cpu.descendants(2, parents)) == [3, 4]
    assert cpu.descendants(6, parents) == []


def test_memory_leaves_out_files_and_keeps_what_is_swapped() -> None:
    rollup = "5596-7ffd ---p 00 [rollup]\nRss: 999 kB\nPss:   416 kB\nPss_Anon:  100 kB\nPss_File:  200 kB\n"
    rollup += "Pss_Shmem:   20 kB\nSwap:  7 kB\nSwapPss:  3 kB\n"
    assert cpu.parse_rollup(rollup) == 123
    with pytest.raises(ValueError, match="no SwapPss"):
        cpu.parse_rollup(rollup.replace("SwapPss", "Other"))
