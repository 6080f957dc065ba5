"""The bench's programs as they are installed: the extra `bench` has nothing that only tests need."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kit.processes import runs
from kit.servers import require_server
from kit.waiting import wait_until

from bench import load  # noqa: F401 - compiled here, and not in the time of a test
from bench.cpu import family

ROOT = Path(__file__).parents[2]
PROGRAMS = ("__main__", "floor", "hostile", "instructions.__main__", "micro.__main__", "pictures", "readme")
_ONLY_FOR_TESTS = ("pytest", "hypothesis")
needs_two_cpus = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")


def python(code: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: a network of one's own is for good, as is what was imported."""
    absent = "".join(f"sys.modules[{name!r}] = None\n" for name in _ONLY_FOR_TESTS)
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{absent}{code}"], cwd=ROOT, capture_output=True, text=True,
        timeout=50, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_needs_nothing_of_the_tests(program: str) -> None:
    if program.startswith("micro"):
        pytest.importorskip("pyperf")
    done = python(f"import bench.{program}")
    assert (done.returncode, done.stderr) == (0, "")


@needs_two_cpus
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


@pytest.mark.parametrize(
    ("program", "processes"),
    [("floor", 4), ("hostile", 2)],  # the floor's with upstreams and a proxy
)
@needs_two_cpus
def test_whoever_is_told_to_end_leaves_nothing(program: str, processes: int, tmp_path: Path) -> None:
    for needed in ("taskset", "openssl"):
        require_server(needed)
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", f"bench.{program}", "--rounds", "1"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: len(family(process.pid)) >= processes, "it has begun", timeout=20)
            started = family(process.pid)
            process.terminate()
            process.send_signal(signal.SIGHUP)  # who says it twice does not disturb the first
            assert process.wait(20) in (128 + signal.SIGTERM, 128 + signal.SIGHUP)
        except BaseException:
            process.kill()
            raise
    wait_until(lambda: not any(runs(pid) for pid in started), "all have ended")
    assert list(tmp_path.iterdir()) == []


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    done = python(
        "import os, signal\nfrom bench import ending\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "def main():\n    os.kill(os.getpid(), signal.SIGHUP)\n    return 7\nending.run(main)"
    )
    assert (done.returncode, done.stderr) == (7, "")


def test_who_is_told_to_end_at_a_bad_moment_ends_after_it() -> None:
    done = python(
        "import os, signal\nfrom bench import ending\n"
        "def main():\n    with ending.undisturbed():\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('over', flush=True)\n    print('not reached')\nending.run(main)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "over\n", "")


@pytest.mark.parametrize("program", ["readme", "pictures"])
@pytest.mark.parametrize("text", ["no JSON", "{}", "[]", '{"proxies": []}', '{"schema": 1}'])
def test_a_file_that_is_no_report_is_told(program: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text(text)
    done = python(f"from bench import {program} as it\nsys.argv[1:] = [{str(file)!r}, 'place']\nit.main()")
    assert done.returncode == 1
    assert done.stderr == f"bench.{program}: {file} is not what `bench --json` writes\n"
