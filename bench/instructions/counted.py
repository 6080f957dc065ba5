"""The process that is counted: a real engine with one worker, and a script that is its whole world.

    LD_PRELOAD=steps.so valgrind --tool=callgrind ... python -m bench.instructions.counted [key ...]

`counting.py` starts it. Each path of `PATHS` is run once before it is counted, then in batches, each of which
callgrind writes into a file of its own.
"""

from __future__ import annotations

import ctypes
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lbcore

from ..micro.compiled import loops
from ..micro.parts import RATED, application, nested
from . import identities
from .script import ACTED, ENDS, PATIENCE, Peer, Steps, Upstreams, connect, until

BATCHES = 3
_SMALL, _ECHO, _CHUNK, _PIECE = 64, 1024, 49152, 262144
_LISTED = 100  # clients on the native list, as many as in the comparison with other proxies
_WARM = 4  # units before the first batch: windows and pools have grown by then
_WORKER = b"lbcore-0"


@dataclass(frozen=True)
class HotPath:
    """Fixed work.

    Attributes:
        key: its name in the budget.
        unit: what one unit of it is.
        units: how many of them one batch is.
        work: the script of one unit.
        opens: the listener where a connection is opened before and ended after what is counted, or None.
    """

    key: str
    unit: str
    units: int
    work: Callable[[World], Steps]
    opens: str | None = None


@dataclass(frozen=True)
class Loop:
    """A part of the core alone, in a loop of C.

    Attributes:
        key: its name in the budget.
        unit: what one unit of it is.
        make: what runs the loop.
    """

    key: str
    unit: str
    make: Callable[[World], Any]
    units: int = 6400


class World:
    """An engine with its listeners, clients and upstreams. The script owns it."""

    def __init__(self, folder: Path) -> None:
        self.identities = identities.make()
        self.loops = loops()
        self.upstreams = Upstreams(2)
        self._context = _client_context(self.identities, folder)
        self._reading = threading.Event()
        self._read_on = threading.Event()
        self.engine = lbcore.Engine(
            workers=1,
            max_connections=1000,
            authorize_timeout=PATIENCE,  # which Python measures in the machine's time
            on_records=self._records,
        )
        self.engine.start()
        self._managers = {"roomy": _manager("roomy", 1000), "full": _manager("full", 1)}
        tls = lbcore.ServerTLS(
            cert=self.identities.server.cert, key=self.identities.server.key, client_ca=self.identities.ca
        )
        self.ports = {name: self._listen(name, tls, None) for name in self._managers}
        self.ports["plain"] = self._listen("plain", None, _manager("plain", 1000))
        self.ports["plain full"] = self._listen("plain full", None, _manager("plain full", 1))
        self.engine.set_policy(_clients())

    def _listen(self, name: str, tls: lbcore.ServerTLS | None, limits: lbcore.RateLimitManager | None) -> int:
        servers = [lbcore.UpstreamServer(address) for address in self.upstreams.addresses]
        app = lbcore.Application(name, servers, limits=limits)
        if tls is None:
            return self.engine.listen(app, "127.0.0.1:0", plaintext=True).port
        return self.engine.listen(app, "127.0.0.1:0", tls=tls, authorize=self._decide).port

    def _decide(self, peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
        return lbcore.Verdict(allow=True, client="client 0", limits=self._managers[application])

    def _records(self, records: Sequence[lbcore.Record]) -> None:
        """Held until the end: a thread that slept and had to be woken now and then would be counted."""
        self._reading.set()
        self._read_on.wait()

    def settle(self) -> Steps:
        """Until the record thread is held, and the policy has answered all that will be asked."""
        yield from self.one_connection("plain")
        yield from until(self._reading.is_set, "the records are not read")
        for name in self._managers:
            yield from self.one_connection(name)

    def stop(self) -> None:
        self._read_on.set()
        self.engine.stop()
        self.upstreams.close()

    def context_of(self, name: str) -> ssl.SSLContext | None:
        return None if name.startswith("plain") else self._context

    # ---- pieces of work

    def open(self, name: str, said: bytes = b"") -> Iterator[int]:
        """A connection through all stages; `pair` has it then. `said` is there before the dial."""
        client = connect(self.ports[name], self.context_of(name))
        if client.has_tls:
            yield ACTED
            yield from client.handshake(said)
        else:
            yield from client.send(said)
        yield from self.upstreams.accept()
        self.pair = client, self.upstreams.taken()

    def one_connection(self, name: str) -> Steps:
        yield from self.open(name)
        yield from echo(*self.pair, _SMALL)
        yield from shut(*self.pair)

    def one_that_speaks_at_once(self, name: str) -> Steps:
        yield from self.open(name, bytes(_SMALL))
        client, upstream = self.pair
        yield from upstream.receive(_SMALL)
        yield from carry(upstream, client, _SMALL)
        yield from shut(client, upstream)


def echo(client: Peer, upstream: Peer, count: int) -> Steps:
    yield from carry(client, upstream, count)
    yield from carry(upstream, client, count)


def carry(source: Peer, target: Peer, count: int) -> Steps:
    yield from source.send(bytes(count))
    yield from target.receive(count)


def shut(client: Peer, upstream: Peer) -> Steps:
    """The client ends first, the upstream after it."""
    yield from client.end()
    yield from upstream.receive_end()
    yield from upstream.end()
    yield from client.receive_end()
    yield from upstream.close()
    yield from client.close()


def _manager(name: str, most: int) -> lbcore.RateLimitManager:
    return lbcore.RateLimitManager(name, max_open=most)


def _clients() -> list[lbcore.PolicyClient]:
    """The one that connects, and others."""
    serials = [identities.CLIENT_SERIAL, *range(10**30, 10**30 + _LISTED - 1)]
    return [
        lbcore.PolicyClient(f"client {number}", [serial], ["roomy", "full"])
        for number, serial in enumerate(serials)
    ]


def _client_context(made: identities.Identities, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=made.ca.decode())
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    cert, key = folder / "client.pem", folder / "client.key"
    cert.write_bytes(made.client.cert)
    key.write_bytes(made.client.key)
    context.load_cert_chain(cert, key)
    return context


# ---- what is counted -----------------------------------------------------------------------------


def new(name: str) -> Callable[[World], Steps]:
    return lambda world: world.one_connection(name)


def new_early(name: str) -> Callable[[World], Steps]:
    return lambda world: world.one_that_speaks_at_once(name)


def moved(count: int, *, up: bool) -> Callable[[World], Steps]:
    def work(world: World) -> Steps:
        client, upstream = world.pair
        return carry(client, upstream, count) if up else carry(upstream, client, count)

    return work


def refused(name: str) -> Callable[[World], Steps]:
    """The scope is full: of the connection that is open."""

    def work(world: World) -> Steps:
        client = connect(world.ports[name], world.context_of(name))
        yield ACTED
        if client.has_tls:
            yield from client.handshake()
        yield from client.receive_end()
        yield from client.close()

    return work


PATHS: tuple[HotPath | Loop, ...] = (
    HotPath("tls-new", "connection: handshake, 64 B there and back, end", 8, new("roomy")),
    HotPath("tls-early", "connection whose first 64 B come with its handshake", 8, new_early("roomy")),
    HotPath("tls-echo", "1 KiB there and back", 16, lambda world: echo(*world.pair, _ECHO), "roomy"),
    HotPath("tls-down", "48 KiB to the client: three full records", 16, moved(_CHUNK, up=False), "roomy"),
    HotPath("tls-up", "48 KiB to the upstream: three full records", 16, moved(_CHUNK, up=True), "roomy"),
    HotPath("tls-refused", "connection of a client that is at its limit", 8, refused("full"), "full"),
    HotPath("tcp-new", "connection: 64 B there and back, end", 8, new("plain")),
    HotPath("tcp-early", "connection whose first 64 B are there before the dial", 8, new_early("plain")),
    HotPath("tcp-echo", "1 KiB there and back", 16, lambda world: echo(*world.pair, _ECHO), "plain"),
    HotPath("tcp-down", "256 KiB to the client", 16, moved(_PIECE, up=False), "plain"),
    HotPath("tcp-refused", "connection at the application's limit", 8, refused("plain full"), "plain full"),
    Loop("limiter-1", "open and close in one scope", lambda world: world.loops.Limits(nested(1, **RATED))),
    Loop("limiter-3", "open and close in three scopes", lambda world: world.loops.Limits(nested(3, **RATED))),
    Loop("pick-2", "pick of 2 upstreams", lambda world: world.loops.Picks(application(2))),
    Loop("pick-16", "pick of 16 upstreams", lambda world: world.loops.Picks(application(16))),
    Loop("pick-affinity-16", "pick of 16 upstreams by affinity",
         lambda world: world.loops.Picks(application(16), affinity=True)),
    Loop("verdict-hit", "verdict that is in the cache", lambda world: world.loops.Verdicts(hit=True)),
    Loop("verdict-miss", "verdict that is not in the cache", lambda world: world.loops.Verdicts(hit=False)),
    Loop("timer-arm", "deadline armed and disarmed", lambda world: world.loops.Timers("arm")),
    Loop("timer-move", "deadline moved", lambda world: world.loops.Timers("move")),
    Loop("timer-expire", "deadline armed, and it comes", lambda world: world.loops.Timers("expire")),
    Loop("line-tls", "line of a finished connection with TLS", lambda world: world.loops.Lines(tls=True)),
    Loop("line-tcp", "line of a finished connection without", lambda world: world.loops.Lines(tls=False)),
)  # fmt: skip


# ---- the run -------------------------------------------------------------------------------------


class Counter:
    """Tells callgrind, through steps.c, what is to be counted, and runs the script inside of the worker."""

    def __init__(self, steps: ctypes.CDLL, script: Iterator[int]) -> None:
        self._script = script
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int)(self._next)
        self._steps = steps
        self.ended = threading.Event()
        self.failure: BaseException | None = None

    def begin(self) -> None:
        self._steps.steps_begin(_WORKER, self._callback)

    def _next(self) -> int:
        try:
            return next(self._script)
        except StopIteration:
            pass
        except BaseException as error:  # nobody catches it in a callback of C
            self.failure = error
        self.ended.set()
        return ENDS


def script(world: World, steps: ctypes.CDLL, paths: Sequence[HotPath | Loop]) -> Steps:
    """All of it."""
    yield from world.settle()
    for path in paths:
        if isinstance(path, Loop):
            yield from _loop(world, steps, path)
        else:
            yield from _hot_path(world, steps, path)


def _loop(world: World, steps: ctypes.CDLL, path: Loop) -> Steps:
    runner = path.make(world)
    runner.run(path.units)
    for _ in range(BATCHES):
        steps.steps_count()
        runner.run(path.units)
        steps.steps_counted(path.key.encode())
    yield ACTED


def _hot_path(world: World, steps: ctypes.CDLL, path: HotPath) -> Steps:
    if path.opens:
        yield from world.open(path.opens)
    held = world.pair
    for _ in range(_WARM):
        yield from path.work(world)
    for _ in range(BATCHES):
        steps.steps_count()
        for _ in range(path.units):
            yield from path.work(world)
        steps.steps_counted(path.key.encode())
    if path.opens:
        yield from shut(*held)


def main(keys: Sequence[str]) -> None:
    """Runs what is named, or everything."""
    steps = ctypes.CDLL(None)  # what is preloaded is everywhere
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        world = World(Path(folder))
    try:
        counter = Counter(steps, script(world, steps, [p for p in PATHS if not keys or p.key in keys]))
        counter.begin()
        counter.ended.wait()
    finally:
        world.stop()
    if counter.failure is not None:
        raise counter.failure


if __name__ == "__main__":
    main(sys.argv[1:])
