"""The bridge to the data plane: with lbctl.upstreams the only part of lbctl that drives the engine.

It turns a `Config` into what the engine takes, and the engine's exceptions into sentences that name the
key of the configuration.
"""

from __future__ import annotations

import errno
import resource
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lbcore
from lbcore.revocation import read_revoked
from lbctl import names
from lbctl.config.faults import Fault, dotted
from lbctl.config.model import App, Config
from lbctl.config.values import shorten
from lbctl.errors import LbctlError
from lbctl.policy import Deferred, Limiters, Rules, make_authorizer
from lbctl.upstreams import Pool

if TYPE_CHECKING:
    from lbcore.stats import OpenConnection

_ADVICE = {
    errno.EADDRINUSE: "another process has it; ss -ltnp shows which",
    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine does not have that address",
}


def faults(config: Config) -> Iterator[Fault]:
    """What the engine would refuse at the start although the configuration alone is right."""
    message = _missing_engine(config)
    if message is not None:
        yield Fault(("tls", "engine"), message)
    problem = names.missing() if any(_named(app) for app in config.apps.values()) else None
    if problem is not None:
        yield Fault(("apps",), problem)
    if config.tls is not None and config.tls.crl:
        try:
            read_revoked(config.tls.crl, config.tls.client_ca.read_bytes())
        except ValueError as error:
            argument, _, problem = str(error).partition(": ")
            if argument == "crl":  # else it is the CA that cannot be read, which has been said
                yield Fault(("tls", "crl"), problem)
        except OSError as error:
            if Path(str(error.filename)) in config.tls.crl:
                problem = f"cannot read {shorten(str(error.filename), 200)}: {error.strerror}"
                yield Fault(("tls", "crl"), problem)


def _named(app: App) -> bool:
    return any(upstream.address is None for upstream in app.upstreams)


def _missing_engine(config: Config) -> str | None:
    compiled = lbcore.tls_engines()
    if config.tls is None or config.tls.engine == "auto" or config.tls.engine in compiled:
        return None
    others = f"this build has no {config.tls.engine}; write {' or '.join(compiled)}"
    if config.tls.engine == "openssl":
        return f"{others}, or install OpenSSL's headers (Debian: libssl-dev) and lbctl again"
    return others


class CannotListen(LbctlError):
    """Ports that did not open; the text has a sentence for each of them."""


@dataclass(frozen=True)
class Opened:
    """An app whose port is open.

    Attributes:
        name: of the app.
        listen: the address in force; it has the port the kernel chose for port 0.
    """

    name: str
    listen: str


@dataclass(frozen=True)
class Pulse:
    """What an operator should hear about when it changes.

    Attributes:
        dropped_records: records the workers could not hand over, since the start.
        accept_errors: connections that could not be accepted, since the start.
    """

    dropped_records: int = 0
    accept_errors: int = 0


def _say_nothing(event: str, **fields: object) -> None:
    """Where events go that nobody wants."""


class EnginePort:
    """One engine that runs one configuration.

    Args:
        config: what to run.
        on_records: gets the records, on a thread of the engine; nobody does by default.
        limiters: of that configuration; new ones by default.
        say: gets events of the client store; nobody hears of them by default.
        admitted: hears of every client that is let in, on a thread of the engine; nobody does by default.
        record_lines: where records go as lines, instead of `on_records`.
        record_selection: which of them there are; all by default.

    Attributes:
        pools: the servers of each app.

    Thread-safety: after `start` every method may be called from any thread.

    Raises:
        LbctlError: the engine cannot do what the configuration asks for.
    """

    def __init__(
        self,
        config: Config,
        on_records: Callable[[Sequence[lbcore.Record]], None] | None = None,
        limiters: Limiters | None = None,
        say: Callable[..., None] = _say_nothing,
        admitted: Callable[[str, lbcore.PeerCertificate], None] | None = None,
        record_lines: lbcore.RecordLines | None = None,
        record_selection: lbcore.RecordSelection | None = None,
    ) -> None:
        self._config = config
        self._rules = Rules(config)
        self._limiters = limiters if limiters is not None else Limiters(config)
        self._authorize = make_authorizer(config, self._rules, self._limiters, say, admitted)
        drain = config.node.drain_timeout
        try:
            self.pools = {
                name: Pool(name, app, self._limiters.application(name), drain)
                for name, app in config.apps.items()
            }
            self._engine = lbcore.Engine(
                workers=config.node.workers,
                max_connections=config.node.max_connections,
                max_unauthenticated=config.node.max_unauthenticated,
                handshake_timeout=config.tls.handshake_timeout if config.tls else 5.0,
                authorize_timeout=config.authorize_timeout,
                tls_engine=config.tls.engine if config.tls else "auto",
                on_records=on_records,
                record_lines=record_lines,
                record_selection=record_selection,
            )
            if not self._rules.elsewhere:  # the table refuses whoever is not in it
                self._engine.set_policy(self._rules.policy_clients())
        except ValueError as error:
            raise LbctlError(_setting(error)) from None

    # ---- start and stop

    def start(self) -> None:
        """Starts the workers; nothing listens yet.

        Raises:
            LbctlError: out of descriptors, threads or memory.
        """
        try:
            self._engine.start()
        except ValueError as error:
            raise LbctlError(_setting(error)) from None
        except OSError as error:
            raise LbctlError(f"the workers cannot start: {error.strerror or error}") from None

    def listen(self) -> list[Opened]:
        """Opens the port of every app.

        Raises:
            CannotListen: some did not open. The others did: stop the engine.
        """
        opened, problems = [], []
        for name, app in self._config.apps.items():
            try:
                opened.append(Opened(name, self._open(name, app).address))
            except (OSError, ValueError) as error:
                problems.append(_listen_problem(name, app, error))
        if problems:
            raise CannotListen(_sentences(problems))
        return opened

    def stop(self, drain: float) -> bool:
        """Stops listening, lets connections finish for so many seconds, ends the rest.

        Returns:
            Whether all of them finished.

        Raises:
            LbctlError: a worker does not answer.
        """
        try:
            return self._engine.stop(drain)
        except RuntimeError as error:
            raise LbctlError(str(error)) from None
        finally:
            if isinstance(self._authorize, Deferred):
                self._authorize.close()

    def abort_drain(self) -> None:
        """Makes a `stop` on another thread end the connections now."""
        self._engine.abort_drain()

    # ---- what is going on

    @property
    def workers(self) -> int:
        """Threads of the data plane."""
        return self._engine.workers

    @property
    def max_connections(self) -> int:
        """Connections at once."""
        return self._engine.max_connections

    @property
    def max_unauthenticated(self) -> int:
        """Sockets at once that have not authenticated yet, besides."""
        return self._engine.max_unauthenticated

    @property
    def tls_library(self) -> str:
        """The TLS engine and the library behind it."""
        return lbcore.tls_engines()[self._engine.tls_engine]

    def open_connections(self) -> int:
        """Connections open now, those not authenticated included."""
        stats = self._engine.stats(applications=False)
        return stats["open"] + stats["unauthenticated"]

    def pulse(self) -> Pulse:
        """How it is doing now."""
        stats = self._engine.stats(applications=False)
        return Pulse(stats["log_dropped"], stats["accept_errors"])

    def connections(self) -> list[OpenConnection]:
        """The open connections, each as a dict."""
        return self._engine.connections()

    # ---- details

    def _open(self, name: str, app: App) -> lbcore.Listener:
        application = self.pools[name].application
        if app.plaintext:
            source_limits = self._limiters.source_class(name, self._rules.class_name(None, name))
            return self._engine.listen(
                application,
                app.listen,
                plaintext=True,
                source_limits=source_limits,
                proxy_protocol_from=app.proxy_protocol_from,
            )
        return self._engine.listen(
            application,
            app.listen,
            tls=_server_tls(self._config, app),
            authorize=self._authorize,
            proxy_protocol_from=app.proxy_protocol_from,
        )


def descriptor_limit() -> int:
    """The soft limit of open files; -1 is none."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _server_tls(config: Config, app: App) -> lbcore.ServerTLS:
    if config.tls is None:  # a configuration with an app that needs it does not load
        raise ValueError("tls: missing")
    own = app.tls or config.tls
    return lbcore.ServerTLS(
        cert=own.cert,
        key=own.key,
        client_ca=config.tls.client_ca,
        alpn=app.alpn,
        crl=config.tls.crl or None,
    )


def _setting(error: ValueError) -> str:
    """An argument of the engine as the key it came from."""
    argument, _, rest = str(error).partition(": ")
    keys = {
        "authorize_timeout": "authorize_timeout",
        "clients": "clients",
        "handshake_timeout": "tls.handshake_timeout",
        "tls_engine": "tls.engine",
    }
    return f"{keys.get(argument, f'node.{argument}')}: {rest}" if rest else str(error)


def _listen_problem(name: str, app: App, error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{dotted(('apps', name))}: cannot read {shorten(str(error.filename), 200)}: {error.strerror}"
    if isinstance(error, OSError):
        advice = _ADVICE.get(error.errno or 0)
        return f"{dotted(('apps', name, 'listen'))}: {error.strerror}{f' ({advice})' if advice else ''}"
    if str(error).startswith("crl: "):
        return f"tls.{error}"
    return f"{dotted(('apps', name))}: {error}"


def _sentences(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} apps cannot listen:", *problems])
