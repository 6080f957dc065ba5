"""The units of work that are measured, and how one of them is measured once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .certificates import Certificates
from .cpu import cpu_ns, memory_kib, settle
from .load import Download, Driver, Hold, Load, NewConnections, OpenEchoes, Target, Upload
from .proxies import Job, Proxy, Running, running

_PARALLEL = 8  # processes of load for new connections
_ECHO_PROCESSES = 2
_ECHO_CONNECTIONS = 64
_BULK_CONNECTIONS = 4


@dataclass(frozen=True)
class Scale:
    """How much of each work one round does.

    Attributes:
        seconds: of work that is counted over time.
        idle: connections that are added between the two readings of memory.
        idle_before: connections that are open at the first reading, so that pools exist.
    """

    seconds: float = 3.0
    idle: int = 2000
    idle_before: int = 100


QUICK = Scale(seconds=1.0, idle=1000)


@dataclass(frozen=True)
class Sample:
    """One measurement of one proxy.

    Attributes:
        value: cost of one unit, in the unit of its work.
        units: how many units were done (connections, echoes, bytes).
        seconds: how long they took, on the wall clock.
        busy: how much of its one CPU the proxy used meanwhile, 0 to 1.
    """

    value: float
    units: int
    seconds: float
    busy: float
    latency: Mapping[str, float] | None = None


Drivers = Callable[[Sequence[Target], Scale], list[Driver]]


@dataclass(frozen=True)
class Work:
    """One line of the report.

    Attributes:
        key: short name, for the command line and the JSON.
        title: what is done, in words.
        unit: of the value reported.
        factor: from nanoseconds (or KiB, for memory) per counted unit to `unit`.
        drivers: the load, one process each, given one target per client certificate.
        plaintext: over the plain TCP port.
        memory: measures memory, not CPU.
    """

    key: str
    title: str
    unit: str
    factor: float
    drivers: Drivers
    plaintext: bool = False
    memory: bool = False


def _new_connections(targets: Sequence[Target], scale: Scale) -> list[Driver]:
    return [NewConnections(target, scale.seconds, 64) for target in _spread(targets, _PARALLEL)]


def _open_echoes(targets: Sequence[Target], scale: Scale) -> list[Driver]:
    each = _ECHO_CONNECTIONS // _ECHO_PROCESSES
    return [OpenEchoes(target, each, scale.seconds, 1024) for target in _spread(targets, _ECHO_PROCESSES)]


def _download(targets: Sequence[Target], scale: Scale) -> list[Driver]:
    return [Download(target, *_bulk_seconds(target, scale)) for target in _spread(targets, _BULK_CONNECTIONS)]


def _upload(targets: Sequence[Target], scale: Scale) -> list[Driver]:
    return [Upload(target, *_bulk_seconds(target, scale)) for target in _spread(targets, _BULK_CONNECTIONS)]


def _bulk_seconds(target: Target, scale: Scale) -> tuple[float, float]:
    """Warm-up and work. Plain TCP takes longer to reach its steady state, where proxies splice."""
    return (2.0 if target.client is None else 0.5), scale.seconds


def _hold(targets: Sequence[Target], scale: Scale) -> list[Driver]:
    return [Hold(targets[0], scale.idle_before, scale.idle)]


def _spread(targets: Sequence[Target], count: int) -> list[Target]:
    return [targets[index % len(targets)] for index in range(count)]


def _mixed(targets: Sequence[Target], scale: Scale) -> list[Driver]:
    return [OpenEchoes(target, 8, scale.seconds, 64) for target in _spread(targets, 1)]


_US = 1e-3  # nanoseconds per unit -> microseconds per unit
_MS_PER_GB = 1e-6 * 1e9  # nanoseconds per byte -> milliseconds per 10^9 bytes

WORKS: tuple[Work, ...] = (
    Work("tls-new", "new connection (full mTLS 1.3 handshake) + 64 B echo", "µs", _US, _new_connections),
    Work("tls-echo", "1 KiB echo on 64 open connections", "µs", _US, _open_echoes),
    Work("tls-down", "download", "ms/GB", _MS_PER_GB, _download),
    Work("tls-up", "upload", "ms/GB", _MS_PER_GB, _upload),
    Work("tls-idle", "memory of an idle authenticated connection", "KiB", 1.0, _hold, memory=True),
    Work("tls-mixed", "stand-in: 64 B echo", "µs", _US, _mixed),
    Work("tcp-new", "plain TCP: new connection + 64 B echo", "µs", _US, _new_connections, plaintext=True),
    Work("tcp-echo", "plain TCP: 1 KiB echo on 64 open connections", "µs", _US, _open_echoes, plaintext=True),
    Work("tcp-down", "plain TCP: download", "ms/GB", _MS_PER_GB, _download, plaintext=True),
)


def targets(work: Work, proxy: Running, certificates: Certificates) -> list[Target]:
    """Where the load of `work` connects: once per listed client, or plain."""
    if work.plaintext:
        return [Target(proxy.plain_port)]
    return [Target(proxy.tls_port, client) for client in certificates.clients]


def measure(work: Work, proxy: Proxy, job: Job, scale: Scale, folder: Path, cpus: Sequence[int]) -> Sample:
    """One round of one work on a freshly started proxy, so that no round inherits another's state.

    Raises:
        ProxyFailed: the proxy did not start or did not survive.
        LoadFailed: any connection failed, or any byte was missing or wrong.
    """
    with running(proxy, job, folder, cpus) as started:
        drivers = work.drivers(targets(work, started, job.certificates), scale)
        with Load(drivers) as load:
            sample = _read(work, load, started.pid)
            load.finish()
        return sample


def _read(work: Work, load: Load, pid: int) -> Sample:
    read = memory_kib if work.memory else cpu_ns
    settle(pid)
    value_before, cpu_before, began = read(pid), cpu_ns(pid), time.monotonic()
    units = load.work()
    seconds, cpu_after = time.monotonic() - began, cpu_ns(pid)
    settle(pid)
    value = (read(pid) - value_before) * work.factor / units
    latency = {"p50": value, "p99": 3 * value, "p99.9": 9 * value} if work.key.endswith("mixed") else None
    return Sample(value, units, seconds, (cpu_after - cpu_before) / 1e9 / seconds, latency)
