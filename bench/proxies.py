"""The proxies under test: how each is configured, started on its own CPU, and stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from types import MappingProxyType

from .certificates import Certificates

_HERE = Path(__file__).parent
_PROJECT = _HERE.parent
_START_WITHIN = 20.0  # seconds
_STOP_WITHIN = 10.0


class ProxyFailed(Exception):
    """A proxy did not start, or ended by itself; the text holds what it wrote."""


class ProxyMissing(Exception):
    """A proxy is not installed; the text says how to get it."""


@dataclass(frozen=True)
class Job:
    """What every proxy is configured to do, the same for all of them.

    Attributes:
        upstream_ports: the two upstreams, on loopback.
        concurrent: connections one client may have open at a time.
        max_connections: of the whole proxy.
    """

    certificates: Certificates
    upstream_ports: tuple[int, int]
    concurrent: int = 3000
    max_connections: int = 4000
    workers: int = 1


@dataclass(frozen=True)
class Running:
    """A started proxy: where it listens and which process to measure."""

    pid: int
    tls_port: int
    plain_port: int


class Proxy(ABC):
    """One proxy: what differs between them is the configuration file and the command."""

    name: str
    config_name: str
    environment: Mapping[str, str] = MappingProxyType({})  # set in addition to ours
    lacks: Mapping[str, str] = MappingProxyType({})  # key of a work it cannot do -> why

    @abstractmethod
    def version(self) -> str:
        """One line that names the exact version.

        Raises:
            ProxyMissing: it is not installed.
        """

    @abstractmethod
    def command(self, config: Path) -> list[str]:
        """What starts it in the foreground."""

    @abstractmethod
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        """The text of its configuration file; further files go into `folder`."""


class LoadBalancer(Proxy):
    """This project, with one worker."""

    name = "lbctl"
    config_name = "lb.yaml"

    def version(self) -> str:
        return _first_line(self, [sys.executable, "-m", "lbctl", "version"])

    def command(self, config: Path) -> list[str]:
        return [sys.executable, "-m", "lbctl", "run", "-c", str(config)]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        certificates = job.certificates
        clients = "\n".join(
            f'  client-{index}: {{serials: ["{serial_hex(serial)}"], apps: [bench-tls]}}'
            for index, serial in enumerate(certificates.serials)
        )
        return _fill(
            self.config_name,
            job,
            (tls_port, plain_port),
            server_cert=certificates.server.cert,
            server_key=certificates.server.key,
            clients=clients,
        )


class HAProxy(Proxy):
    """HAProxy as the distribution packages it, with one thread."""

    name = "haproxy"
    config_name = "haproxy.cfg"
    environment = MappingProxyType({"OPENSSL_CONF": str(_HERE / "haproxy-openssl.cnf")})

    def version(self) -> str:
        if not shutil.which("haproxy"):
            raise ProxyMissing("haproxy is not installed; on Debian: apt-get install haproxy")
        return _first_line(self, ["haproxy", "-v"])

    def command(self, config: Path) -> list[str]:
        return ["haproxy", "-db", "-f", str(config)]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        serials = folder / "serials.lst"
        serials.write_text("".join(f"{serial_hex(serial)}\n" for serial in job.certificates.serials))
        return _fill(
            self.config_name,
            job,
            (tls_port, plain_port),
            server_pem=job.certificates.server_combined,
            serials=serials,
        )


PROXIES: tuple[Proxy, ...] = (LoadBalancer(), HAProxy())  # the first is what the others are held against


def serial_hex(serial: int) -> str:
    """A serial as both configurations spell it: whole octets, upper case."""
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


@contextlib.contextmanager
def running(proxy: Proxy, job: Job, folder: Path, cpus: Sequence[int]) -> Iterator[Running]:
    """Starts `proxy` pinned to `cpus`, ready to be connected to; stops it at the end.

    Raises:
        ProxyFailed: it did not start, or ended by itself.
    """
    tls_port, plain_port = _free_ports(2)
    config = folder / proxy.config_name
    config.write_text(proxy.configuration(job, folder, tls_port, plain_port))
    output = folder / f"{proxy.name}.log"
    command = ["taskset", "--cpu-list", ",".join(map(str, cpus)), *proxy.command(config)]
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, env=_environment(proxy)
        )
    try:
        _wait_for_ports(process, (tls_port, plain_port), proxy, output)
        with _blamed(process, proxy, output):
            yield Running(process.pid, tls_port, plain_port)
    finally:
        _stop(process)


@contextlib.contextmanager
def _blamed(process: subprocess.Popen[bytes], proxy: Proxy, output: Path) -> Iterator[None]:
    """A failure under load is told with what the proxy wrote; a proxy that died is the failure."""
    try:
        yield
        if process.poll() is not None:
            raise ConnectionError("the proxy is gone")
    except Exception as failure:
        if process.poll() is not None:
            words = _words(proxy, f"ended by itself (exit {process.returncode})", output)
            raise ProxyFailed(words) from failure
        failure.add_note(_words(proxy, "is still running", output))
        raise


def _wait_for_ports(
    process: subprocess.Popen[bytes], ports: Sequence[int], proxy: Proxy, output: Path
) -> None:
    deadline = time.monotonic() + _START_WITHIN
    for port in ports:
        while not _answers(port):
            if process.poll() is not None:
                raise ProxyFailed(_words(proxy, f"did not start (exit {process.returncode})", output))
            if time.monotonic() > deadline:
                raise ProxyFailed(_words(proxy, f"did not listen within {_START_WITHIN:.0f} s", output))
            time.sleep(0.02)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_WITHIN)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _words(proxy: Proxy, what: str, output: Path) -> str:
    wrote = output.read_text(errors="replace")[-4000:].strip() or "(nothing)"
    return f"{proxy.name} {what}. It wrote:\n{wrote}"


def _fill(template: str, job: Job, ports: tuple[int, int], **values: object) -> str:
    return Template((_HERE / template).read_text()).substitute(
        values,
        ca_pem=job.certificates.ca,
        tls_port=ports[0],
        plain_port=ports[1],
        upstream_one=job.upstream_ports[0],
        upstream_two=job.upstream_ports[1],
        concurrent=job.concurrent,
        max_connections=job.max_connections,
        workers=job.workers,
    )


def _environment(proxy: Proxy) -> dict[str, str]:
    """Ours, with the `lbctl` that is imported here, else that of the source tree."""
    found = importlib.util.find_spec("lbctl")
    source = Path(found.origin).resolve().parents[1] if found and found.origin else _PROJECT / "src"
    path = [os.environ.get("PYTHONPATH", ""), str(source)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), **proxy.environment}


def _first_line(proxy: Proxy, command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=_environment(proxy), check=False)
    if done.returncode:
        raise ProxyFailed(f"{' '.join(command)} failed. It wrote:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout.splitlines()[0].strip()


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held until all are known, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
