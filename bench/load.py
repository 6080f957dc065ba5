"""The load: connections that count their work and check every byte they get.

A driver prepares (connects, warms up), works when it is told to, and holds its connections until it is told
to finish, so that what is measured is bounded exactly. Anything that goes wrong in it ends the whole run: a
number from work that failed in part would mean nothing.

    connect -> ready | work -> what was done | finish: everything ended in order

The loops are native (`native/load.pyx`) and do not hold the interpreter, so drivers run side by side in
threads.
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from .certificates import KeyPair
from .native.histogram import Histogram
from .native.load import Load, LoadFailed
from .report import PERCENTILES

_TRANSFER = 1 << 25  # bytes
_WARM_UP = 0.1  # seconds
_OUTLASTS = 0.1  # seconds that bulk transfers go on for, so that no echo is alone
_SMALL = 64  # bytes of an echo that is there to prove something
_ATTEMPTS = 4  # at a time, of each client in a storm
_T = TypeVar("_T")


@dataclass(frozen=True)
class Target:
    """Where to connect, and as whom.

    Attributes:
        port: on loopback.
        client: certificate to present; None: plain TCP.
        ca: of the server; the TLS engine wants one, although nothing is verified, which saves the load's CPU.
    """

    port: int
    client: KeyPair | None = None
    ca: Path | None = None

    def material(self) -> tuple[bytes, bytes, bytes] | None:
        """Certificate, key and CA, for the native load; None for plain TCP.

        Raises:
            ValueError: there is no CA, which the TLS engine wants, though nothing is verified.
        """
        if self.client is None:
            return None
        if self.ca is None:
            raise ValueError("the native load needs a CA")
        return self.client.cert.read_bytes(), self.client.key.read_bytes(), self.ca.read_bytes()


def message(size: int) -> bytes:
    """An echo request of exactly `size` bytes."""
    return b"echo ".ljust(size - 1, b"x") + b"\n"


@dataclass(frozen=True)
class Done:
    """What a driver did while it was measured.

    Attributes:
        units: connections, echoes, bytes, refusals.
        latencies: of its units, where they were sent on a schedule.
        beside: bytes that were transferred beside them.
    """

    units: int
    latencies: Histogram | None = None
    beside: int = 0


class Driver(ABC):
    """Something that makes load, on the thread that calls it. Raises (all of its methods): LoadFailed."""

    def __init__(self, *loads: Load) -> None:
        self._loads = loads

    @abstractmethod
    def prepare(self) -> None:
        """Everything that is not measured: connections that are to be open, warm-up."""

    @abstractmethod
    def work(self) -> Done:
        """What is measured."""

    def finish(self) -> None:
        """Ends what is still open, in order and on both sides."""
        for load in self._loads:
            load.end()

    def close(self) -> None:
        """Drops everything, also after a failure."""
        for load in self._loads:
            load.close()


class NewConnections(Driver):
    """Connects, echoes once and ends, so many at a time, over and over."""

    def __init__(self, targets: Sequence[Target], at_once: int, seconds: float) -> None:
        self._at_once = at_once
        self._seconds = seconds
        self._load = _echoes(targets, _SMALL, at_once)
        super().__init__(self._load)

    def prepare(self) -> None:
        self._load.renew(self._at_once, _WARM_UP)

    def work(self) -> Done:
        return Done(self._load.renew(self._at_once, self._seconds))


class OpenEchoes(Driver):
    """Echoes on connections that stay open, on each of them one after the other."""

    def __init__(self, targets: Sequence[Target], connections: int, seconds: float, size: int) -> None:
        self._connections = connections
        self._seconds = seconds
        self._load = _echoes(targets, size, connections)
        super().__init__(self._load)

    def prepare(self) -> None:
        self._load.open(self._connections)
        self._load.repeat(_WARM_UP)

    def work(self) -> Done:
        return Done(self._load.repeat(self._seconds))


class Hold(Driver):
    """Opens connections, proves each by an echo and keeps it open, idle."""

    def __init__(self, targets: Sequence[Target], before: int, more: int) -> None:
        self._before = before
        self._more = more
        self._load = _echoes(targets, _SMALL, before + more)
        super().__init__(self._load)

    def prepare(self) -> None:
        self._load.open(self._before)

    def work(self) -> Done:
        self._load.open(self._more)
        return Done(self._more)

    def finish(self) -> None:
        """They were there all the time: each does one more echo."""
        self._load.repeat(0)
        super().finish()


class Bulk(Driver):
    """Transfers on open connections, on each of them back to back, as warm-up and as work.

    The warm-up is long because a bulk transfer has a start of its own: until the kernel has grown
    its windows and the proxy has noticed that this is bulk, a gigabyte costs up to four times more.
    """

    def __init__(self, load: Load, connections: int, warm_up: float, seconds: float) -> None:
        self._connections = connections
        self._warm_up = warm_up
        self._seconds = seconds
        self._load = load
        super().__init__(load)

    def prepare(self) -> None:
        self._load.open(self._connections)
        self._load.repeat(self._warm_up)

    def work(self) -> Done:
        return Done(self._load.repeat(self._seconds) * _TRANSFER)


def download(targets: Sequence[Target], connections: int, warm_up: float, seconds: float) -> Bulk:
    """Takes bytes from the source as fast as they come. Plain bytes are counted without a copy."""
    return Bulk(_transfers(targets, connections, "source"), connections, warm_up, seconds)


def upload(targets: Sequence[Target], connections: int, warm_up: float, seconds: float) -> Bulk:
    """Sends bytes to the sink, which reports them when it has all of a transfer."""
    return Bulk(_transfers(targets, connections, "sink"), connections, warm_up, seconds)


class Storm(Driver):
    """Clients that have as many connections open as they may, and go on connecting; each is refused."""

    def __init__(self, targets: Sequence[Target], allowed: int, seconds: float) -> None:
        """`allowed`: connections that each client may have open."""
        self._at_once = _ATTEMPTS * len(targets)
        self._held = allowed * len(targets)
        self._seconds = seconds
        self._holding = _echoes(targets, _SMALL, self._held)
        self._storming = _echoes(targets, _SMALL, self._at_once)
        super().__init__(self._holding, self._storming)

    def prepare(self) -> None:
        self._holding.open(self._held)
        self._refused(_WARM_UP)

    def work(self) -> Done:
        return Done(self._refused(self._seconds))

    def _refused(self, seconds: float) -> int:
        refused, admitted = self._storming.refused(self._at_once, seconds)
        if admitted:
            raise LoadFailed(f"{admitted} connections beyond a client's limit were let in, {refused} refused")
        return refused


class Mixed(Driver):
    """Small echoes on a schedule, beside bulk downloads that take all they can get.

    An echo's time counts from when it was due: one that had to wait for those before it has waited.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        *,
        echoes: int,
        rate: float,
        downloads: int,
        warm_up: float,
        seconds: float,
    ) -> None:
        """`echoes`, `downloads`: connections; `rate`: echoes a second on all of them together."""
        self._echoes = echoes
        self._rate = rate
        self._downloads = downloads
        self._warm_up = warm_up
        self._seconds = seconds
        self._echoing = _echoes(targets, _SMALL, echoes)
        self._downloading = _transfers(targets, downloads, "source")
        super().__init__(self._echoing, self._downloading)

    def prepare(self) -> None:
        self._echoing.open(self._echoes)
        self._downloading.open(self._downloads)
        self._downloading.repeat(self._warm_up)

    def work(self) -> Done:
        echoed, downloaded = together([self._echo, self._download])
        return replace(echoed, beside=downloaded.units)

    def _echo(self) -> Done:
        histogram = self._echoing.schedule(self._rate, self._seconds)
        return Done(len(histogram), histogram)

    def _download(self) -> Done:
        """Behind the echoes, where both want one CPU: what is timed is the proxy, not the load. It goes on a
        little longer than they do."""
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return Done(self._downloading.repeat(self._seconds + _OUTLASTS) * _TRANSFER)


class Crowd(Driver):
    """Drivers of the same kind that work at the same time, each on a thread of its own."""

    def __init__(self, drivers: Sequence[Driver]) -> None:
        self._drivers = drivers
        super().__init__()

    def prepare(self) -> None:
        together([driver.prepare for driver in self._drivers])

    def work(self) -> Done:
        """Latencies, and what was beside them, are those of the first; only what there is one of has any."""
        done = together([driver.work for driver in self._drivers])
        return replace(done[0], units=sum(part.units for part in done))

    def finish(self) -> None:
        together([driver.finish for driver in self._drivers])

    def close(self) -> None:
        for driver in self._drivers:
            driver.close()


def together(calls: Sequence[Callable[[], _T]]) -> list[_T]:
    """The results of calls that are made at the same time, each on a thread of its own."""
    if len(calls) == 1:
        return [calls[0]()]
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def percentiles(latencies: Histogram) -> Mapping[str, float]:
    """What is reported of them, in microseconds."""
    return {name: latencies.percentile(share) / 1e3 for name, share in PERCENTILES.items()}


def _echoes(targets: Sequence[Target], size: int, most: int) -> Load:
    payload = message(size)
    return Load(targets[0].port, _clients(targets), payload, answer=payload, most=most)


def _transfers(targets: Sequence[Target], most: int, job: str) -> Load:
    request = b"%s %d\n" % (job.encode(), _TRANSFER)
    clients = _clients(targets)
    if job == "source":
        return Load(targets[0].port, clients, request, download=_TRANSFER, most=most)
    return Load(targets[0].port, clients, request, upload=_TRANSFER, answer=b"%d\n" % _TRANSFER, most=most)


def _clients(targets: Sequence[Target]) -> list[tuple[bytes, bytes, bytes] | None]:
    return [target.material() for target in targets]
