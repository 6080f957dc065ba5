"""The parts of the bench that need no proxy: counters, arithmetic, configurations, bytes on the wire."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench import certificates, cpu, report
from bench.load import LoadFailed, expect
from bench.proxies import PROXIES, HAProxy, Job, LoadBalancer, Proxy, ProxyFailed, running, serial_hex
from bench.works import WORKS, Sample
from lbctl import config


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> certificates.Certificates:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


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


def test_report_in_both_forms() -> None:
    samples = {"lbctl": [Sample(10.0, 5, 1.0, 0.5)], "haproxy": [Sample(40.0, 5, 1.0, 1.0)]}
    results = [report.Result(WORKS[0], samples)]
    table = report.markdown(results, ["lbctl", "haproxy"], {"cpu": "some"})
    assert "| 10.0 (10.0 - 10.0) | 40.0 (40.0 - 40.0) | 0.25 (0.25 - 0.25) | 50% / 100% |" in table
    loaded = json.loads(json.dumps(report.as_json(results, ["lbctl", "haproxy"], {"cpu": "some"})))
    assert loaded["works"][0]["ratios"]["haproxy"]["median"] == 0.25
    assert loaded["works"][0]["proxies"]["lbctl"]["rounds"][0]["units"] == 5


def test_report_of_one_proxy_has_no_ratio() -> None:
    results = [report.Result(WORKS[0], {"haproxy": [Sample(40.0, 5, 1.0, 1.0)]})]
    assert " / " not in report.markdown(results, ["haproxy"], {})
    assert report.as_json(results, ["haproxy"], {})["works"][0]["ratios"] == {}


@pytest.mark.parametrize(("serial", "text"), [(0x1, "01"), (0xABC, "0ABC"), (0xF00D, "F00D")])
def test_serials_are_whole_octets(serial: int, text: str) -> None:
    assert serial_hex(serial) == text


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_configurations_are_complete(proxy: Proxy, made: certificates.Certificates, tmp_path: Path) -> None:
    text = proxy.configuration(Job(made, (1001, 1002), concurrent=77), tmp_path, 1003, 1004)
    settings = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert "$" not in settings
    for expected in ("127.0.0.1:1001", "127.0.0.1:1002", "127.0.0.1:1003", "127.0.0.1:1004", "77"):
        assert expected in settings


def test_both_get_the_same_allow_list(made: certificates.Certificates, tmp_path: Path) -> None:
    job = Job(made, (1, 2))
    document = yaml.safe_load(LoadBalancer().configuration(job, tmp_path, 3, 4))
    HAProxy().configuration(job, tmp_path, 3, 4)
    listed = (tmp_path / "serials.lst").read_text().split()
    assert [client["serials"] for client in document["clients"].values()] == [[serial] for serial in listed]
    assert len(set(listed)) == certificates.LISTED_CLIENTS


def test_our_configuration_is_valid(made: certificates.Certificates, tmp_path: Path) -> None:
    written = tmp_path / "lb.yaml"
    written.write_text(LoadBalancer().configuration(Job(made, (1001, 1002)), tmp_path, 1003, 1004))
    loaded = config.read(written)
    assert [problem.message for problem in config.check_files(loaded)] == []
    assert loaded.config.node.workers == 1


def test_a_proxy_that_does_not_start_is_quoted(made: certificates.Certificates, tmp_path: Path) -> None:
    class Broken(HAProxy):
        def command(self, config: Path) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('the port is on fire')"]

    with (
        pytest.raises(ProxyFailed, match=re.compile("did not start.*the port is on fire", re.DOTALL)),
        running(Broken(), Job(made, (1, 2)), tmp_path, [0]),
    ):
        pytest.fail("it was taken for started")


@pytest.mark.parametrize(
    ("answer", "words"),
    [(b"12345678", "other bytes"), (b"1234", "ended after 4 of 8"), (b"", "after 0")],
)
def test_an_echo_that_is_not_one_is_a_failure(answer: bytes, words: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(answer)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(LoadFailed, match=words):
            expect(ours, b"abcdefgh")
