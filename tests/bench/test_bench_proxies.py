"""The proxies of the bench: their configurations, and that each does what it says it does."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import yaml
from kit.processes import runs
from kit.servers import missing, require_server
from kit.upstreams import Session, Upstream, source
from kit.waiting import wait_until

from bench import certificates, preflight
from bench.cpu import family
from bench.proxies import (
    PROXIES,
    BareLoadBalancer,
    Envoy,
    HAProxy,
    Job,
    Limit,
    LoadBalancer,
    LoadBalancerOnOpenSSL,
    Nginx,
    Proxy,
    ProxyFailed,
    ProxyMissing,
    Running,
    Stunnel,
    Version,
    running,
    serial_hex,
)
from bench.proxies import base as proxies_base
from bench.works import WORKS
from lbctl import config

CPUS = sorted(os.sched_getaffinity(0))
PEERS = [proxy for proxy in PROXIES if not proxy.ours]


def installed(proxy: Proxy) -> Version:
    """Its version; without it the test is skipped, or fails where all of Debian's servers are required."""
    try:
        return proxy.version()
    except ProxyMissing as absent:
        if "Debian" in str(absent):
            missing(str(absent))
        pytest.skip(str(absent))


def lines(proxy: Proxy, job: Job, folder: Path) -> list[str]:
    """Its configuration without what is said about it."""
    text = proxy.configuration(job, folder, 1003, 1004)
    return [line for line in text.splitlines() if not line.lstrip().startswith(("#", ";"))]


# ---- configurations ------------------------------------------------------------------------------


@pytest.mark.parametrize(("serial", "text"), [(0x1, "01"), (0xABC, "0ABC"), (0xF00D, "F00D")])
def test_serials_are_whole_octets(serial: int, text: str) -> None:
    assert serial_hex(serial) == text


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_configurations_have_all_ports(proxy: Proxy, made: certificates.Certificates, tmp_path: Path) -> None:
    installed(proxy)
    settings = "\n".join(lines(proxy, Job(made, (1001, 1002)), tmp_path))
    for port in (1001, 1002, 1003, *([1004] if proxy.has_plain else [])):
        assert re.search(rf"127\.0\.0\.1(:|, port_value: ){port}\b", settings)


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_configurations_have_the_limit(proxy: Proxy, made: certificates.Certificates, tmp_path: Path) -> None:
    """What changes with the limit is the limit; where a proxy has none like it, nothing does."""
    installed(proxy)
    job = Job(made, (1001, 1002), concurrent=77, max_connections=177)

    def changed(**limit: int) -> list[str]:
        other = lines(proxy, dataclasses.replace(job, **limit), tmp_path)
        return [line for line, now in zip(lines(proxy, job, tmp_path), other, strict=True) if line != now]

    each, all_of_them = changed(concurrent=78), changed(max_connections=178)
    assert bool(each) == (proxy.limit in (Limit.CLIENT, Limit.SOURCE))
    assert all(re.search(r"\b77\b", line) for line in each)
    assert bool(all_of_them) == (proxy.limit is not Limit.NONE)


IN_FAVOUR = {
    "haproxy": ["tune.bufsize 65536", "tune.pipesize 262144", "option splice-auto"],
    "nginx": [
        "multi_accept on;",
        "access_log nginx-access.log connection buffer=64k flush=1s;",
        "proxy_buffer_size 64k;",
        "listen 127.0.0.1:1003 ssl reuseport backlog=4096;",
        "listen 127.0.0.1:1004 reuseport backlog=4096;",
    ],
    "envoy": [],
    "stunnel": [],
}
INSTEAD = {
    "nginx": [
        "access_log nginx-access.log connection;",
        "listen 127.0.0.1:1003 ssl backlog=4096;",
        "listen 127.0.0.1:1004 backlog=4096;",
    ]
}


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_as_packaged_is_without_what_is_in_its_favour(
    proxy: Proxy, made: certificates.Certificates, tmp_path: Path
) -> None:
    """And only without that; nothing is in ours."""
    installed(proxy)
    job = Job(made, (1001, 1002))
    chosen = [line.strip() for line in lines(proxy, job, tmp_path)]
    plain = [line.strip() for line in lines(proxy, dataclasses.replace(job, as_packaged=True), tmp_path)]
    assert [line for line in chosen if line not in plain] == ([] if proxy.ours else IN_FAVOUR[proxy.name])
    assert [line for line in plain if line not in chosen] == INSTEAD.get(proxy.name, [])


def test_all_get_the_same_allow_list(made: certificates.Certificates, tmp_path: Path) -> None:
    job = Job(made, (1, 2))
    document = yaml.safe_load(LoadBalancer().configuration(job, tmp_path, 3, 4))
    HAProxy().configuration(job, tmp_path, 3, 4)
    listed = (tmp_path / "serials.lst").read_text().split()
    assert [client["serials"] for client in document["clients"].values()] == [[serial] for serial in listed]
    envoy = yaml.safe_load(Envoy().configuration(job, tmp_path, 3, 4))
    tls = envoy["static_resources"]["listeners"][0]["filter_chains"][0]["transport_socket"]["typed_config"]
    fingerprints = tls["common_tls_context"]["validation_context"]["verify_certificate_hash"]
    Stunnel().configuration(job, tmp_path, 3, 4)
    trusted = (tmp_path / "ca-and-listed.pem").read_text().count("BEGIN CERTIFICATE")
    assert len(set(listed)) == len(set(fingerprints)) == trusted - 1 == certificates.LISTED_CLIENTS


def test_nginx_gets_the_same_allow_list(made: certificates.Certificates, tmp_path: Path) -> None:
    installed(Nginx())
    Nginx().configuration(Job(made, (1, 2)), tmp_path, 3, 4)
    listed = [line.split()[0] for line in (tmp_path / "serials.map").read_text().splitlines()]
    assert listed == [serial_hex(serial) for serial in made.serials]


@pytest.mark.parametrize("kind", [LoadBalancer, LoadBalancerOnOpenSSL, BareLoadBalancer])
def test_our_configuration_is_valid(
    kind: type[LoadBalancer], made: certificates.Certificates, tmp_path: Path
) -> None:
    written = tmp_path / "lb.yaml"
    written.write_text(kind().configuration(Job(made, (1001, 1002), workers=2), tmp_path, 1003, 1004))
    loaded = config.read(written)
    assert [problem.message for problem in config.check_files(loaded)] == []
    assert loaded.config.node.workers == 2
    assert loaded.config.tls is not None
    assert loaded.config.tls.engine == kind.engine
    bare = kind is BareLoadBalancer
    assert (not loaded.config.limits, loaded.config.logging.access.sample == 0) == (bare, bare)


def test_what_a_proxy_lacks_are_works() -> None:
    keys = {"tcp", *(work.key for work in WORKS)}
    for proxy in PROXIES:
        assert set(proxy.lacks) <= keys


def test_whoever_lacks_tcp_lacks_every_work_without_tls() -> None:
    lacked = [work.key for work in WORKS if Stunnel().lack(work.key)]
    assert lacked == ["tls-storm", *(work.key for work in WORKS if work.plaintext)]
    assert [work.key for work in WORKS if Envoy().lack(work.key)] == ["tls-storm", "tcp-storm"]


def test_a_missing_one_is_told_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxies_base.shutil, "which", lambda name, path: None)
    for proxy in (proxy for proxy in PROXIES if not proxy.ours):
        with pytest.raises(ProxyMissing, match=rf"{proxy.name} is not installed: .*(apt-get|pip) install \w"):
            proxy.version()


def test_nginx_without_its_stream_module_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = f"nginx version: nginx/1.2\nconfigure arguments: --modules-path={tmp_path} --with-stream=dynamic"
    monkeypatch.setattr(Nginx, "ask", lambda self, command: said)
    monkeypatch.setattr(Nginx, "_program", lambda self: "nginx")
    with pytest.raises(ProxyMissing, match="without its stream module"):
        Nginx().version()


# ---- started -------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", PROXIES, ids=lambda proxy: proxy.name)
def test_each_does_what_it_says(proxy: Proxy, job: Job, tmp_path: Path) -> None:
    require_server("openssl")
    assert installed(proxy).tls != proxies_base.UNKNOWN
    assert "AES_128_GCM" in preflight.prove(proxy, job, tmp_path, CPUS)


@pytest.mark.parametrize("proxy", PEERS, ids=lambda proxy: proxy.name)
def test_each_does_it_as_packaged_too(proxy: Proxy, job: Job, tmp_path: Path) -> None:
    installed(proxy)
    assert preflight.prove(proxy, dataclasses.replace(job, as_packaged=True), tmp_path, CPUS)


class _WithoutLimit(HAProxy):
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        text = super().configuration(job, folder, tls_port, plain_port)
        return "".join(line for line in text.splitlines(True) if "sc0_conn_cur(per_client) gt" not in line)


class _WithoutList(HAProxy):
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        text = super().configuration(job, folder, tls_port, plain_port)
        return "".join(line for line in text.splitlines(True) if "serials.lst" not in line)


class _OneLimitForAll(HAProxy):
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        text = super().configuration(job, folder, tls_port, plain_port)
        text = text.replace("track-sc0 ssl_c_serial,hex table per_client", "track-sc0 dst table per_source")
        return text.replace("sc0_conn_cur(per_client)", "sc0_conn_cur(per_source)")


class _OnePlainLimitForAll(HAProxy):
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        text = super().configuration(job, folder, tls_port, plain_port)
        return text.replace("track-sc0 src table per_source", "track-sc0 dst table per_source")


class _InTurns(HAProxy):
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        return super().configuration(job, folder, tls_port, plain_port).replace("leastconn", "roundrobin")


class _WithoutLog(HAProxy):
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        text = super().configuration(job, folder, tls_port, plain_port)
        return text.replace("log stdout format raw local0 info", "")


class _WithTickets(HAProxy):
    environment = {}  # noqa: RUF012 - as the class it is derived from has it

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        text = super().configuration(job, folder, tls_port, plain_port)
        return text.replace(" no-tls-tickets", "")


class _DearerCipher(HAProxy):
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        text = super().configuration(job, folder, tls_port, plain_port)
        return text.replace("TLS_AES_128_GCM_SHA256:", "")


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        (_WithoutList(), "not on the allow list: was let in"),
        (_WithoutLimit(), "4 of a client's connections are open, 3 are allowed"),
        (_OneLimitForAll(), "another client while 3 of a client's connections are open: "),
        (_OnePlainLimitForAll(), "another address while 3 of the plain connections of an address are open: "),
        (_InTurns(), "the next went to"),
        (_WithoutLog(), "no line about the connection"),
        (_WithTickets(), "session tickets"),
        (_DearerCipher(), "agreed on TLS_AES_256_GCM_SHA384"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Proxy) else "",
)
def test_a_cheaper_job_is_found_out(proxy: Proxy, words: str, job: Job, tmp_path: Path) -> None:
    installed(proxy)
    with pytest.raises(preflight.JobNotDone, match=f"haproxy does not do the job: .*{words}"):
        preflight.prove(proxy, job, tmp_path, CPUS)


def test_what_a_proxy_does_to_bulk_is_found_out(job: Job, tmp_path: Path) -> None:
    """Either way, and so that the number of bytes stays."""

    def tampering(session: Session) -> None:
        first = session.sock.recv(1 << 16)
        session.sock.sendall(first)
        while part := session.sock.recv(1 << 16):
            session.sock.sendall(part[:-1] + bytes([part[-1] ^ 1]))

    def zeroes(session: Session) -> None:
        count = int(session.sock.recv(1 << 16).split()[1])
        session.sock.sendall(bytes(count))

    intact = iter([source(preflight.expected_download()), tampering])
    for scripts, words in (
        (iter([zeroes]), "a download arrived altered"),
        (intact, "what was uploaded came back altered"),
    ):
        with Upstream(lambda session, scripts=scripts: next(scripts)(session)) as upstream:
            looking = preflight._Preflight(HAProxy(), job, Running(os.getpid(), 0, upstream.port))
            with pytest.raises(preflight.JobNotDone, match=words):
                looking._carries_bytes(None)


def with_its_master_killed(job: Job, folder: Path, workers: list[int]) -> None:
    with running(Nginx(), job, folder, CPUS) as proxy:
        wait_until(lambda: len(family(proxy.pid)) == 2, "a worker")
        workers += [pid for pid in family(proxy.pid) if pid != proxy.pid]
        os.kill(proxy.pid, signal.SIGKILL)
        os.waitid(os.P_PID, proxy.pid, os.WEXITED | os.WNOWAIT)


def test_the_workers_of_a_master_that_was_killed_end_too(job: Job, tmp_path: Path) -> None:
    installed(Nginx())
    workers: list[int] = []
    with pytest.raises(ProxyFailed, match="ended by itself"):
        with_its_master_killed(job, tmp_path, workers)
    assert len(workers) == 1
    wait_until(lambda: not runs(workers[0]), "the worker has ended")


def test_a_proxy_that_does_not_start_is_quoted(made: certificates.Certificates, tmp_path: Path) -> None:
    class Broken(HAProxy):
        def command(self, config: Path, job: Job) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('the port is on fire')"]

    with (
        pytest.raises(ProxyFailed, match=re.compile("did not start.*the port is on fire", re.DOTALL)),
        running(Broken(), Job(made, (1, 2)), tmp_path, CPUS),
    ):
        pytest.fail("it was taken for started")
