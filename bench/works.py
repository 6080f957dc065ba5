"""The units of work that are measured, and how one of them is measured once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .certificates import LOAD_CLIENTS, Certificates
from .cpu import cpu_ns, memory_kib, settle
from .load import (
    Crowd,
    Driver,
    Hold,
    LoadFailed,
    Mixed,
    NewConnections,
    OpenEchoes,
    Storm,
    Target,
    download,
    percentiles,
    upload,
)
from .proxies import Job, Proxy, Running, running

_AT_ONCE = 16  # new connections
_ECHO_CONNECTIONS = 64
_BULK_CONNECTIONS = 4
_STORM_LIMIT = 4  # connections that each client may have open, and has, when it storms
_MIXED_DOWNLOADS = 8
_MIXED_ECHOES = 64  # connections, so that one that is late holds up few others
_MIXED_RATE = 500.0  # echoes a second


@dataclass(frozen=True)
class Scale:
    """How much of each work one round does.

    Attributes:
        seconds: of work that is counted over time.
        idle: connections that are added between the two readings of memory.
        idle_before: connections that are open at the first reading: as many as a burst has under way at once,
            so that what is kept for those is there before.
        lasts: seconds of a whole measurement on two CPUs, roughly: start, connecting, warm-up, work, end.
    """

    seconds: float = 3.0
    idle: int = 4000
    idle_before: int = 1000
    lasts: float = 6.0


QUICK = Scale(seconds=1.0, idle=1500, idle_before=500, lasts=3.0)


@dataclass(frozen=True)
class Sample:
    """One measurement of one proxy.

    Attributes:
        value: cost of one unit, in the unit of its work.
        units: how many units were done (connections, echoes, bytes, refusals).
        seconds: how long they took, on the wall clock.
        busy: how much of its CPUs the proxy used meanwhile, 0 to 1.
        latency: percentile ("p50", "p99", "p99.9") -> microseconds, of works that time their units.
        beside: bytes that were transferred beside those.
    """

    value: float
    units: int
    seconds: float
    busy: float
    latency: Mapping[str, float] | None = None
    beside: int = 0


Drivers = Callable[[Sequence[Target], Scale], Driver]


@dataclass(frozen=True)
class Work:
    """One line of the report.

    Attributes:
        key: short name, for the command line and the JSON.
        title: what is done, in words.
        unit: of the value reported.
        factor: from nanoseconds (or KiB, for memory) per counted unit to `unit`.
        driver: the load, given one target per client.
        plaintext: over the plain TCP port.
        concurrent: connections a client may have open, where that differs from the job.
        grows: there is one such load for each CPU of the load, up to the number of workers.
        reads: what the value is made from.
    """

    key: str
    title: str
    unit: str
    factor: float
    driver: Drivers
    plaintext: bool = False
    concurrent: int | None = None
    grows: bool = False
    reads: Literal["cpu", "memory", "latency"] = "cpu"

    @property
    def memory(self) -> bool:
        """Whether it measures memory, not CPU."""
        return self.reads == "memory"


def _new_connections(targets: Sequence[Target], scale: Scale) -> Driver:
    return NewConnections(targets, _AT_ONCE, scale.seconds)


def _open_echoes(targets: Sequence[Target], scale: Scale) -> Driver:
    return OpenEchoes(targets, _ECHO_CONNECTIONS, scale.seconds, 1024)


def _download(targets: Sequence[Target], scale: Scale) -> Driver:
    return download(targets, _BULK_CONNECTIONS, _bulk_warm_up(targets), scale.seconds)


def _upload(targets: Sequence[Target], scale: Scale) -> Driver:
    return upload(targets, _BULK_CONNECTIONS, _bulk_warm_up(targets), scale.seconds)


def _bulk_warm_up(targets: Sequence[Target]) -> float:
    """Plain TCP takes longer to reach its steady state, where proxies splice."""
    return 2.0 if targets[0].client is None else 0.5


def _hold(targets: Sequence[Target], scale: Scale) -> Driver:
    return Hold(targets, scale.idle_before, scale.idle)


def _storm(targets: Sequence[Target], scale: Scale) -> Driver:
    return Storm(targets, _STORM_LIMIT, scale.seconds)


def _mixed(targets: Sequence[Target], scale: Scale) -> Driver:
    return Mixed(
        targets,
        echoes=_MIXED_ECHOES,
        rate=_MIXED_RATE,
        downloads=_MIXED_DOWNLOADS,
        warm_up=_bulk_warm_up(targets),
        seconds=scale.seconds,
    )


_US = 1e-3  # nanoseconds per unit -> microseconds per unit
_MS_PER_GB = 1e-6 * 1e9  # nanoseconds per byte -> milliseconds per 10^9 bytes

_BOTH_WAYS: tuple[Work, ...] = (
    Work("new", "new connection + 64 B echo", "µs", _US, _new_connections, grows=True),
    Work("echo", "1 KiB echo on 64 open connections", "µs", _US, _open_echoes, grows=True),
    Work("down", "download", "ms/GB", _MS_PER_GB, _download, grows=True),
    Work("up", "upload", "ms/GB", _MS_PER_GB, _upload, grows=True),
    Work("idle", "memory of an idle connection", "KiB", 1.0, _hold, reads="memory"),
    Work("storm", "connection beyond its client's limit", "µs", _US, _storm, concurrent=_STORM_LIMIT),
    Work("mixed", "p99 of a 64 B echo beside 8 downloads", "µs", 1.0, _mixed, reads="latency"),
)
WORKS: tuple[Work, ...] = (
    *(replace(work, key=f"tls-{work.key}", title=f"mTLS 1.3: {work.title}") for work in _BOTH_WAYS),
    *(
        replace(work, key=f"tcp-{work.key}", title=f"plain TCP: {work.title}", plaintext=True)
        for work in _BOTH_WAYS
    ),
)


def targets(work: Work, proxy: Running, certificates: Certificates) -> list[Target]:
    """Where the load of `work` connects: once per listed client, or as often plain, each from an address
    of its own."""
    if work.plaintext:
        return [Target(proxy.plain_port)] * LOAD_CLIENTS
    return [Target(proxy.tls_port, client, certificates.ca) for client in certificates.clients]


def measure(work: Work, proxy: Proxy, job: Job, scale: Scale, folder: Path, cpus: Sequence[int]) -> Sample:
    """One round of one work on a freshly started proxy, so that no round inherits another's state.

    Raises:
        ProxyFailed: the proxy did not start or did not survive.
        LoadFailed: any connection failed, any byte was missing or wrong, or all of it cost nothing.
    """
    if work.concurrent is not None:
        job = replace(job, concurrent=work.concurrent)
    threads = min(job.workers, len(os.sched_getaffinity(0))) if work.grows else 1
    with running(proxy, job, folder, cpus) as started:
        aims = targets(work, started, job.certificates)
        drivers = [work.driver(aims, scale) for _ in range(threads)]
        with closing(Crowd(drivers)) as driver:
            driver.prepare()
            sample = _read(work, driver, started.pid, len(cpus))
            driver.finish()
            return sample


def _read(work: Work, driver: Driver, pid: int, cpus: int) -> Sample:
    read = memory_kib if work.memory else cpu_ns
    settle(pid)
    value_before, cpu_before, began = read(pid), cpu_ns(pid), time.monotonic()
    done = driver.work()
    seconds, cpu_after = time.monotonic() - began, cpu_ns(pid)
    settle(pid)
    latency = None if done.latencies is None else percentiles(done.latencies)
    cost = (read(pid) - value_before) / done.units if latency is None else latency["p99"]
    if cost <= 0:
        raise LoadFailed(f"{work.title} cost nothing: too little was done to be measured")
    busy = (cpu_after - cpu_before) / 1e9 / seconds / cpus
    return Sample(cost * work.factor, done.units, seconds, busy, latency, done.beside)
