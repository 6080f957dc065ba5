"""What a proxy is to the bench: how it is configured, started on its own CPUs, and stopped."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from string import Template
from types import MappingProxyType

from ..certificates import Certificates
from ..ending import undisturbed

CONFIGURATIONS = Path(__file__).parents[1] / "configurations"
UNKNOWN = "an unknown library"
_PROJECT = Path(__file__).parents[2]
# A comment in a template: --as-packaged leaves out the line below it, or has what it quotes instead.
_FAVOUR = re.compile(r'^( *)[#;] In its favour(?: instead of "([^"]+)")?: .*\n.*\n', re.MULTILINE)
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
        concurrent: connections one client may have open at a time; no work but a storm comes near it.
        max_connections: of the whole proxy; more than all works hold open.
        workers: threads or processes that serve.
        as_packaged: peers without the choices in their favour.
    """

    certificates: Certificates
    upstream_ports: tuple[int, int]
    concurrent: int = 3000
    max_connections: int = 6000
    workers: int = 1
    as_packaged: bool = False


@dataclass(frozen=True)
class Running:
    """A started proxy: where it listens and which process, with its children, to measure.

    Attributes:
        tls_port: 0 when the proxy has no TLS.
        plain_port: 0 when the proxy has no plain TCP.
    """

    pid: int
    tls_port: int
    plain_port: int


@dataclass(frozen=True)
class Version:
    """Of the program, and of the TLS library that it runs on."""

    product: str
    tls: str


class Limit(Enum):
    """Whose open connections a proxy can count on its TLS port."""

    CLIENT = "each client"
    SOURCE = "each source address"
    PROCESS = "all clients together"
    NONE = "nobody"


class Proxy(ABC):
    """One proxy: what differs between them is the configuration, the command, and what they cannot do.

    Attributes:
        name: also of the program, where it is a peer.
        install: how to get a peer.
        config_name: of its template in `configurations`, and of the file it is given.
        environment: set in addition to ours.
        ours: this project, not a peer.
        lacks: keys of works that it cannot do, or "tcp" for all of those without TLS, and a sentence why.
        has_tls: whether it is given a port with TLS.
        has_plain: whether it is given a port without TLS.
        differs: sentences about parts of the job that it does in another way.
        limit: whose connections it limits on its TLS port.
        least_connections: whether the next connection goes to the upstream that has fewer.
        log_name: the file in its folder that has its lines about connections.
    """

    name: str
    install = ""
    config_name: str
    environment: Mapping[str, str] = MappingProxyType({})
    ours = False
    lacks: Mapping[str, str] = MappingProxyType({})
    has_tls = True
    has_plain = True
    differs: tuple[str, ...] = ()
    limit = Limit.CLIENT
    least_connections = True
    log_name = "output.log"

    @abstractmethod
    def version(self) -> Version:
        """The exact version.

        Raises:
            ProxyMissing: it is not installed.
        """

    @abstractmethod
    def command(self, config: Path, job: Job) -> list[str]:
        """What starts it in the foreground, in its folder."""

    @abstractmethod
    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        """The text of its configuration file; further files go into `folder`."""

    def folder(self, parent: Path) -> Path:
        """Where it is started; what it wrote stays there until it is started again."""
        return parent / self.name

    def lack(self, key: str) -> str | None:
        """Why it is not measured in that work; None when it is."""
        return self.lacks.get(key, self.lacks.get(key.partition("-")[0]))

    def fill(self, job: Job, ports: tuple[int, int], **values: object) -> str:
        """Its template with the job in it, and with `values`."""
        certificates = job.certificates
        template = (CONFIGURATIONS / self.config_name).read_text()
        return Template(as_packaged(template) if job.as_packaged else template).substitute(
            {
                "ca_pem": certificates.ca,
                "server_cert": certificates.server.cert,
                "server_key": certificates.server.key,
                "tls_port": ports[0],
                "plain_port": ports[1],
                "upstream_one": job.upstream_ports[0],
                "upstream_two": job.upstream_ports[1],
                "concurrent": job.concurrent,
                "max_connections": job.max_connections,
                "workers": job.workers,
                **values,
            }
        )

    def _program(self) -> str:
        """The path of a peer: in the PATH, beside the running Python, or where Debian keeps servers.

        Raises:
            ProxyMissing: it is in none of them; the text says how to get it.
        """
        places = os.pathsep.join([os.environ.get("PATH", ""), str(Path(sys.executable).parent), "/usr/sbin"])
        found = shutil.which(self.name, path=places)
        if not found:
            raise ProxyMissing(f"{self.name} is not installed: {self.install}")
        return found

    def ask(self, command: list[str]) -> str:
        """What a command that ends by itself writes, in its environment.

        Raises:
            ProxyFailed: it fails.
        """
        done = subprocess.run(command, capture_output=True, text=True, env=_environment(self), check=False)
        if done.returncode:
            raise ProxyFailed(f"{' '.join(command)} failed. It wrote:\n{(done.stdout + done.stderr).strip()}")
        return done.stdout + done.stderr


def as_packaged(template: str) -> str:
    """A configuration without the choices in the peer's favour."""
    return _FAVOUR.sub(lambda found: f"{found[1]}{found[2]}\n" if found[2] else "", template)


def serial_hex(serial: int) -> str:
    """A serial as the configurations spell it: whole octets, upper case."""
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


@contextlib.contextmanager
def running(proxy: Proxy, job: Job, folder: Path, cpus: Sequence[int]) -> Iterator[Running]:
    """Starts `proxy` pinned to `cpus`, ready to be connected to; stops it at the end.

    Raises:
        ProxyFailed: it did not start, or ended by itself.
    """
    own = proxy.folder(folder)
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    tls_port, plain_port = _free_ports(2)
    if not proxy.has_tls:
        tls_port = 0
    if not proxy.has_plain:
        plain_port = 0
    config = own / proxy.config_name
    config.write_text(proxy.configuration(job, own, tls_port, plain_port))
    output = own / "output.log"
    command = ["taskset", "--cpu-list", ",".join(map(str, cpus)), *proxy.command(Path(config.name), job)]
    process: subprocess.Popen[bytes] | None = None
    try:
        with output.open("wb") as log, undisturbed():
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=own, env=_environment(proxy),
                process_group=0,
            )  # fmt: skip
        _wait_for_ports(process, [port for port in (tls_port, plain_port) if port], proxy, output)
        with _blamed(process, proxy, output):
            yield Running(process.pid, tls_port, plain_port)
    finally:
        if process is not None:
            _stop(process)


@contextlib.contextmanager
def _blamed(process: subprocess.Popen[bytes], proxy: Proxy, output: Path) -> Iterator[None]:
    """A failure under load is told with what the proxy wrote; a proxy that died is the failure."""
    try:
        yield
        if _exit_of(process) is not None:
            raise ConnectionError("the proxy is gone")
    except Exception as failure:
        if (code := _exit_of(process)) is not None:
            raise ProxyFailed(_words(proxy, f"ended by itself (exit {code})", output)) from failure
        failure.add_note(_words(proxy, "is still running", output))
        raise


def _wait_for_ports(
    process: subprocess.Popen[bytes], ports: Sequence[int], proxy: Proxy, output: Path
) -> None:
    deadline = time.monotonic() + _START_WITHIN
    for port in ports:
        while not _answers(port):
            if (code := _exit_of(process)) is not None:
                raise ProxyFailed(_words(proxy, f"did not start (exit {code})", output))
            if time.monotonic() > deadline:
                raise ProxyFailed(_words(proxy, f"did not listen within {_START_WITHIN:.0f} s", output))
            time.sleep(0.02)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _exit_of(process: subprocess.Popen[bytes]) -> int | None:
    """As `poll` says it, and the process keeps its number, and so its group, until `_stop`."""
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks it to end; after a while, or where it went without them, all of its group are ended."""
    if _exit_of(process) is None:
        os.kill(process.pid, signal.SIGTERM)
    ended = os.pidfd_open(process.pid)
    try:
        select.select([ended], [], [], _STOP_WITHIN)
    finally:
        os.close(ended)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _words(proxy: Proxy, what: str, output: Path) -> str:
    wrote = output.read_text(errors="replace")[-4000:].strip() or "(nothing)"
    return f"{proxy.name} {what}. It wrote:\n{wrote}"


def _environment(proxy: Proxy) -> dict[str, str]:
    """Ours, with the `lbctl` that is imported here, else that of the source tree."""
    found = importlib.util.find_spec("lbctl")
    source = Path(found.origin).resolve().parents[1] if found and found.origin else _PROJECT / "src"
    given = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    absolute = [str(Path(entry).absolute()) for entry in given]  # it runs in another folder
    path = [*absolute, str(source)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), **proxy.environment}


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all are held until all are known, so that they differ."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [sock.getsockname()[1] for sock in sockets]
