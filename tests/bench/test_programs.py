"""The bench's programs as they are installed: the extra `bench` has nothing that only tests need."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kit.servers import require_server
from kit.waiting import wait_until

from bench import readme
from bench.cpu import family

ROOT = Path(__file__).parents[2]
PROGRAMS = ("__main__", "floor", "hostile", "instructions.__main__", "micro.__main__", "pictures", "readme")
_ONLY_FOR_TESTS = ("pytest", "hypothesis")


def python(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a network of one's own is for good, as is what was imported."""
    absent = "".join(f"sys.modules[{name!r}] = None\n" for name in _ONLY_FOR_TESTS)
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{absent}{code}"], cwd=ROOT, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_needs_nothing_of_the_tests(program: str) -> None:
    if program.startswith("micro"):
        pytest.importorskip("pyperf")
    done = python(f"import bench.{program}")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_hostile_measures_all_its_rows() -> None:
    done = python(
        "from bench import hostile\nhostile.SAMPLES, hostile.FLOODS = 3, 1\nhostile.main(['--rounds', '1'])"
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 4
    assert all(float(row[column]) > 0 for row in rows for column in (3, 6))
    assert "a stranger holds" in done.stdout


@pytest.mark.parametrize("program", ["__main__", "floor", "hostile"])
def test_on_one_cpu_it_says_what_it_needs(program: str) -> None:
    one = min(os.sched_getaffinity(0))
    begin = f"import os\nos.sched_setaffinity(0, {{{one}}})\nfrom bench import {program} as it\n"
    done = python(f"{begin}sys.exit(it.main([]))")
    assert done.returncode == 1
    assert re.match(r"bench[.a-z]*: needs two CPUs, ", done.stderr)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["bench.floor", "bench.hostile"])
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_whoever_is_told_to_end_leaves_nothing(program: str, tmp_path: Path) -> None:
    require_server("taskset")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", program, "--rounds", "1"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        wait_until(lambda: len(family(process.pid)) > 1 and any(tmp_path.iterdir()), "it has begun")
        started = family(process.pid)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), "all have ended")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("program", ["readme", "pictures"])
@pytest.mark.parametrize("text", ["no JSON", "{}", "[]", '{"proxies": []}'])
def test_a_file_that_is_no_report_is_told(program: str, text: str, tmp_path: Path) -> None:
    if program == "pictures":
        pytest.importorskip("matplotlib")
    file, place = tmp_path / "run.json", tmp_path / "place"
    file.write_text(text)
    if program == "readme":
        place.write_text(f"{readme.BEGIN}\n{readme.END}\n")
    arguments = [sys.executable, "-m", f"bench.{program}", str(file), str(place)]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        f"bench.{program}: {file} is not what `bench --json` writes\n",
    )
