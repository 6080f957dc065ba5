"""The report of the bench: its order, its arithmetic, its forms; and a whole small run."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
from kit.servers import require_server

from bench import __main__ as command_line
from bench import compare, pictures, readme, report
from bench.certificates import Certificates
from bench.compare import ITSELF, Bench, Case, turns
from bench.proxies import Job, LoadBalancer, Nginx, Proxy, ProxyMissing
from bench.works import WORKS, Sample, Scale, Work

ROOT = Path(__file__).parents[2]
LATENCY = {"p50": 10.0, "p99": 30.0, "p99.9": 90.0}


def work(key: str) -> Work:
    return next(work for work in WORKS if work.key == key)


def about(name: str, tls: str = "a library", *, ours: bool = False) -> report.About:
    lacks = MappingProxyType({} if ours else {"tls-storm": "it has no limit", "tcp-storm": "it has no limit"})
    return report.About(name, f"{name} 1.0", tls, "TLSv1.3", f"{name} -f", ours, lacks, ("does it its way",))


def sample(value: float, latency: dict[str, float] | None = None) -> Sample:
    return Sample(value, 500, 2.0, 0.5, latency)


@pytest.fixture
def made_up() -> report.Report:
    """Three proxies, of which one cannot do the second work."""
    new = report.Result(
        work("tls-new"),
        {
            "lbctl": [sample(10), sample(30)],
            "lbctl-openssl": [sample(20), sample(20)],
            "haproxy": [sample(40), sample(60)],
            "nginx": [sample(20), sample(40)],
        },
    )
    idle = report.Result(
        work("tls-idle"), {"lbctl": [sample(8), sample(8)], "haproxy": [sample(20), sample(20)]}
    )
    mixed = report.Result(
        work("tls-mixed"), {name: [sample(30, LATENCY), sample(30, LATENCY)] for name in ("lbctl", "haproxy")}
    )
    down = report.Result(work("tcp-down"), {"nginx": [sample(300), sample(300)]})
    itself = report.Result(work("tls-new"), {"on": [sample(21), sample(21)], "off": [sample(20), sample(20)]})
    return report.Report(
        {"command": "python -m bench --rounds 2 --json run.json", "rounds": "2", "peers": "as packaged"},
        {"cpu": "some"},
        [
            about("lbctl", ours=True),
            about("lbctl-openssl", "OpenSSL 3", ours=True),
            about("haproxy", "OpenSSL 3"),
            about("nginx", "OpenSSL 4"),
        ],
        [report.Pass(1, [new, idle, mixed, down])],
        [report.Itself("with and without", "on", "off", 1.1, [itself])],
        ["envoy is not installed: get it"],
    )


def pictures_of(done: report.Report, folder: Path) -> list[Path]:
    """In a process of its own: matplotlib keeps its fonts open."""
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install '.[bench]'")
    folder.mkdir(exist_ok=True)
    written = folder / "run.json"
    written.write_text(json.dumps(report.as_json(done)))
    command = [sys.executable, "-m", "bench.pictures", str(written), str(folder)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return [Path(line) for line in printed.splitlines()]


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that gets as far as a run fails."""

    def run(*arguments: object) -> None:
        pytest.fail("a run began")

    monkeypatch.setattr(command_line._Run, "__init__", run)


# ---- arithmetic ----------------------------------------------------------------------------------


def test_everybody_is_in_turn_the_first() -> None:
    cases = [Case(name, LoadBalancer()) for name in "ABC"]
    order = [(number, case.name) for number, case in turns(cases, 4)]
    assert order == [(1 + index // 3, name) for index, name in enumerate("ABCBCACABABC")]


def test_this_project_is_measured_against_itself(
    made: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two workers and one, in turns, on the same CPUs, in the works of the comparison that were asked for."""
    measured = []

    def measure(work: Work, proxy: Proxy, job: Job, scale: Scale, folder: Path, cpus: list[int]) -> Sample:
        measured.append((work.key, proxy.name, job.workers, cpus))
        return sample(10.0 * job.workers)

    monkeypatch.setattr(compare, "measure", measure)
    bench = Bench(tmp_path, Scale(), rounds=2, measurements=4)
    both = next(one for one in ITSELF if one.cpus == 2)
    done = bench.itself(both, [work("tls-new"), work("tls-idle")], Job(made, (1, 2)), [0, 1])
    assert measured == [("tls-new", "lbctl", workers, [0, 1]) for workers in (2, 1, 1, 2)]
    assert [result.ratio(done.ours, done.theirs).median for result in done.results] == [2.0]
    assert "[4/4] tls-new 2 two" in capsys.readouterr().err


def test_ratio_is_of_medians_and_its_extremes_of_pairs() -> None:
    ratio = report.ratios([10.0, 30.0, 20.0], [40.0, 50.0, 100.0])
    assert ratio == report.Spread(20 / 50, 20 / 100, 30 / 50)


@pytest.mark.parametrize(("ours", "theirs"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [0.0])])
def test_no_ratio_from_rounds_that_do_not_match(ours: list[float], theirs: list[float]) -> None:
    with pytest.raises(ValueError, match=r"round"):
        report.ratios(ours, theirs)


@pytest.mark.parametrize(
    ("value", "text"), [(1570.4, "1570"), (100.0, "100"), (31.24, "31.2"), (0.616, "0.62")]
)
def test_three_digits_that_mean_something(value: float, text: str) -> None:
    assert report.significant(value) == text


def test_the_best_peer_is_the_cheapest_that_can_do_it(made_up: report.Report) -> None:
    new, idle, _, down = made_up.passes[0].results
    assert made_up.peers == ["haproxy", "nginx"]
    assert [new.best(made_up.peers), idle.best(made_up.peers)] == ["nginx", "haproxy"]
    assert down.best(["haproxy"]) is None


def test_rates_are_of_works_that_go_as_fast_as_they_can(made_up: report.Report) -> None:
    new, idle, mixed, _ = made_up.passes[0].results
    assert new.rate("lbctl") == report.Spread(250.0, 250.0, 250.0)
    assert (idle.rate("lbctl"), mixed.rate("lbctl")) == (None, None)


# ---- forms ---------------------------------------------------------------------------------------


def test_the_report_for_people(made_up: report.Report) -> None:
    text = report.markdown(made_up)
    new, idle, down = (work(key).title for key in ("tls-new", "tls-idle", "tcp-down"))
    for row in (
        f"| {new} | µs | 20.0 (10.0–30.0) | 20.0 (20.0–20.0) | 50.0 (40.0–60.0) | 30.0 (20.0–40.0) |",
        f"| {new} | 0.40 (0.25–0.50) | 0.67 (0.50–0.75) | nginx: 0.67 (0.50–0.75) |",
        f"| {new} | 0.40 (0.33–0.50) | haproxy: 0.40 (0.33–0.50) |",  # the only one on the same library
        f"| {idle} | 0.40 (0.40–0.40) | – | haproxy: 0.40 (0.40–0.40) |",
        f"| {new} | 250 /s | 250 /s | 250 /s | 250 /s |",
        f"| {down} | – | – | – | 0.00 GB/s |",
        "| p99.9 | 90.0 (90.0–90.0) | – | 90.0 (90.0–90.0) | – |",
        f"| with and without | {new} | µs | on: 21.0 (21.0–21.0) | off: 20.0 (20.0–20.0) | 1.05 (1.05–1.05) "
        "| ≤ 1.1 |",
        "  - does it its way",
        "  - not measured in tls-storm, tcp-storm: it has no limit",
        "Not here: envoy is not installed: get it",
    ):
        assert row in text
    assert "OpenSSL 4: " not in text


def test_every_row_has_the_columns_of_its_head(made_up: report.Report) -> None:
    for part in report.markdown(made_up).split("\n\n"):
        if part.startswith("|"):
            assert len({line.count("|") for line in part.splitlines()}) == 1


def test_the_report_for_programs(made_up: report.Report) -> None:
    loaded = json.loads(json.dumps(report.as_json(made_up)))
    assert loaded["schema"] == report.SCHEMA
    assert loaded["proxies"][2]["lacks"] == {"tls-storm": "it has no limit", "tcp-storm": "it has no limit"}
    new = loaded["passes"][0]["works"][0]
    assert new["ratios"]["haproxy"] == {"median": 0.4, "least": 0.25, "greatest": 0.5}
    assert (new["best"], set(new["ratios"])) == ("nginx", {"haproxy", "nginx"})
    assert [one["value"] for one in new["proxies"]["lbctl"]["rounds"]] == [10.0, 30.0]
    mixed = loaded["passes"][0]["works"][2]["proxies"]["lbctl"]
    assert (mixed["rounds"][0]["latency"], mixed["latency"]["p99"]["median"]) == (LATENCY, 30.0)
    assert loaded["itself"][0]["works"][0]["ratio"]["median"] == 1.05
    assert loaded["skipped"] == ["envoy is not installed: get it"]


def test_a_report_without_peers_has_no_ratio(made_up: report.Report) -> None:
    result = report.Result(work("tls-new"), {"haproxy": [sample(40.0)]})
    alone = report.Report({}, {}, [about("haproxy")], [report.Pass(1, [result])])
    assert "/ peer" not in report.markdown(alone)
    assert report.as_json(alone)["passes"][0]["works"][0]["ratios"] == {}


def test_pictures_are_the_same_for_the_same_numbers(made_up: report.Report, tmp_path: Path) -> None:
    drawn = [pictures_of(made_up, tmp_path / folder) for folder in ("first", "second")]
    assert [path.name for path in drawn[0]] == ["cpu.svg", "memory.svg", "latency.svg"]
    assert [path.read_bytes() for path in drawn[0]] == [path.read_bytes() for path in drawn[1]]
    cpu = drawn[0][0].read_text()
    assert "<dc:date>" not in cpu
    for words in (f"{work('tls-new').title}, µs", "lbctl-openssl", "haproxy", "nginx", "50.0"):
        assert f">{words}</text>" in cpu


def test_pictures_show_every_proxy_however_many(made_up: report.Report, tmp_path: Path) -> None:
    names = [f"proxy-{number}" for number in range(12)]
    result = report.Result(work("tls-new"), {name: [sample(10.0)] for name in names})
    many = report.Report({}, {}, [about(name) for name in names], [report.Pass(1, [result])])
    (cpu,) = pictures_of(many, tmp_path)
    drawn = cpu.read_text()
    assert [name for name in names if f">{name}</text>" not in drawn] == []


def test_a_readme_has_the_table_between_its_marks(made_up: report.Report, tmp_path: Path) -> None:
    written = tmp_path / "README.md"
    document = report.as_json(made_up)
    with_marks = f"# Before\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n"
    written.write_text(with_marks)
    readme.write(document, written)
    once = written.read_text()
    readme.write(document, written)
    assert written.read_text() == once
    assert once.startswith("# Before\n")
    assert once.endswith("\nafter\n")
    assert "old" not in once
    new, down = work("tls-new").title, work("tcp-down").title
    assert f"| {new} | µs | 20.0 | 20.0 | 50.0 | 30.0 | 0.67 (0.50–0.75), nginx |" in once
    assert f"| {down} | ms/GB | – | – | – | 300 | – |" in once
    assert "\n\n`python -m bench --rounds 2`: medians of 2 rounds, peers as packaged, " in once


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("python -m bench", "python -m bench"),
        ("python -m bench --json a.json --workers all --svg=b --rounds 3 --readme 'c d'",
         "python -m bench --workers all --rounds 3"),
    ],
)  # fmt: skip
def test_a_readme_does_not_tell_where_else_it_was_written_to(
    command: str, told: str, made_up: report.Report
) -> None:
    document = report.as_json(
        dataclasses.replace(made_up, run={"command": command, "rounds": "2", "peers": "as packaged"})
    )
    assert f"`{told}`: medians" in readme.summary(document)


def test_a_readme_without_marks_is_left_alone(made_up: report.Report, tmp_path: Path) -> None:
    written = tmp_path / "README.md"
    written.write_text("# Before\n")
    with pytest.raises(readme.NoPlace, match="has no place"):
        readme.write(report.as_json(made_up), written)
    assert written.read_text() == "# Before\n"


def test_without_matplotlib_nothing_is_measured(
    no_run: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    assert command_line.main(["--svg", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "bench: pictures need matplotlib: pip install '.[bench]'\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--json", "{tmp}/none/run.json"], "{tmp}/none is no folder that can be written to: make it"),
        (["--json", "{tmp}"], "{tmp} is no file that can be written: name another"),
        (["--svg", "{tmp}/plain/pictures"], "{tmp}/plain is no folder that can be written to"),
        (["--readme", "{tmp}/none.md"], "{tmp}/none.md is no file: name one that has the lines <!-- Made"),
        (["--readme", "{tmp}/plain"], "{tmp}/plain has no place for the table: add the lines <!-- Made"),
    ],
)
def test_what_cannot_be_written_is_told_before_anything_is_measured(
    arguments: list[str],
    words: str,
    no_run: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pictures, "require", lambda: None)
    (tmp_path / "plain").write_text("no marks\n")
    assert command_line.main([part.format(tmp=tmp_path) for part in arguments]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"bench: {words.format(tmp=tmp_path)}")


def test_what_may_not_be_written_is_told_as_well(
    no_run: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever runs the tests may be root, who may write everything: so the system's answer is made up."""
    written = tmp_path / "README.md"
    written.write_text(f"{readme.BEGIN}\n{readme.END}\n")
    monkeypatch.setattr(os, "access", lambda path, how: Path(path) != written)
    assert command_line.main(["--readme", str(written)]) == 1
    assert f"bench: {written} is no file that can be written" in capsys.readouterr().err


def test_a_disk_that_is_full_afterwards_takes_nothing_away_from_what_is_printed(
    made_up: report.Report, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line._Run, "__init__", lambda self, *given: None)
    monkeypatch.setattr(command_line._Run, "measured", lambda self: made_up)
    assert command_line.main(["--json", "/dev/full"]) == 1
    out, err = capsys.readouterr()
    assert out == report.markdown(made_up) + "\n"
    assert "No space left on device\nWhat is printed was measured" in err


# ---- a run ---------------------------------------------------------------------------------------


def test_a_whole_run_names_who_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(proxy: Nginx) -> None:
        raise ProxyMissing("nginx is not installed: get it")

    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two CPUs")
    for program in ("haproxy", "openssl", "taskset"):
        require_server(program)
    monkeypatch.setattr(Nginx, "version", missing)
    proxies = [part for name in ("lbctl", "haproxy", "nginx") for part in ("--proxy", name)]
    written = tmp_path / "run.json"
    # In the network of the tests: this is their process.
    rest = ["--network", "machine", "--json", str(written)]
    arguments = ["--quick", "--rounds", "1", "--work", "tcp-echo", *proxies, *rest]
    assert command_line.main(arguments) == 0
    out, err = capsys.readouterr()
    assert "| haproxy: " in out
    assert "Not here: nginx is not installed: get it" in out
    assert "bench: skipped: nginx is not installed: get it" in err
    assert "bench: 2 measurements, roughly 1 min" in err
    assert "[2/2] tcp-echo 1 haproxy" in err
    loaded = json.loads(written.read_text())
    assert [one["name"] for one in loaded["proxies"]] == ["lbctl", "haproxy"]
    assert loaded["run"]["network"] == "the machine's"
    assert all(one["value"] > 0 for one in loaded["passes"][0]["works"][0]["proxies"]["haproxy"]["rounds"])
