"""The life of the process: start, run, drain, stop.

    from lbctl import config, daemon

    daemon.serve(config.build({"version": 1, "apps": {...}, ...}))

The same configuration model serves a file and Python. `serve` blocks the main thread and owns the
signals; `Service` is the same without signals, for a program with a life of its own:

    with Service(config.build({...})) as service:
        print(service.opened)
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from lbctl import __version__, systemd
from lbctl.alerts import Alerts
from lbctl.config import Config, Loaded, Problem, check_files
from lbctl.engine_port import EnginePort, Opened, Pulse, descriptor_limit
from lbctl.errors import ConfigInvalid, ExitCode, LbctlError
from lbctl.expiry import CertificateEnds
from lbctl.limit_state import LimitState
from lbctl.logs import Descriptor, Journal, LineWriter, LogFile
from lbctl.logs.bridge import bridged
from lbctl.policy import Limiters
from lbctl.signals import Signals
from lbctl.upstreams import Upstreams

TICK = 1.0  # seconds between looks at what is due
PROGRESS = 5.0  # seconds between words about a drain
FILES_AGAIN = 86400.0  # seconds between looks at the certificates
STDERR = 2
_STOPPING = (signal.SIGTERM, signal.SIGINT)

#: Called when all ports are open; text it returns is written in place of the start's events on a terminal.
Started = Callable[["Service"], str | None]


class Service:
    """A configuration that runs: engine, policy, journal.

    Args:
        config: the configuration; a `Loaded` makes problems with files carry their place.

    Attributes:
        config: the configuration.
        journal: where events and records go.
        engine: the bridge to the data plane.
        opened: the apps whose ports are open.

    Entering starts it and opens every port; leaving stops it after `node.drain_timeout` at most. In
    between somebody calls `tick` once a second, as `serve` does.
    """

    def __init__(self, config: Config | Loaded) -> None:
        self._source = config
        self.config = config.config if isinstance(config, Loaded) else config
        self.opened: list[Opened] = []
        self._pulse = Pulse()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop(self.config.node.drain_timeout)
        finally:
            self.close()

    # ---- start

    def start(self, started: Started | None = None) -> None:
        """Starts everything, or nothing.

        Raises:
            ConfigInvalid: a certificate or key it names cannot be used.
            LbctlError: a port, the access log or the limits file cannot be opened, or something else
                is lacking.
        """
        began = descriptor_limit()
        warnings = self._check_files()
        with ExitStack() as undo:
            self.journal = self._open_journal()
            undo.callback(self.journal.close)
            undo.enter_context(bridged(self.journal))
            state = self._open_limit_state()
            limiters = Limiters(self.config, state.restore if state is not None else None)
            self.alerts = Alerts(self.config.alerts, self.config.node.name, self.journal.event)
            undo.callback(self.alerts.close)
            self._certificates = CertificateEnds(self.config, self.journal.event, self.alerts)
            self.engine = EnginePort(
                self.config,
                self.journal.on_records if self.journal.record_lines is None else None,
                limiters,
                self.journal.event,
                self._certificates.admitted,
                self.journal.record_lines,
                self.journal.record_selection,
            )
            if state is not None:
                undo.callback(state.close)  # after the engine: what it counted last is in it
            self.engine.start()
            undo.callback(self.engine.stop, 0.0)
            self.upstreams = Upstreams(
                self.engine.pools, self.journal.event, self.alerts.alert, self.config.node.name_servers
            )
            undo.callback(self.upstreams.stop)
            self.upstreams.start()
            self.opened = self.engine.listen()
            if state is not None:
                state.start(limiters)
            text = started(self) if started is not None else None
            if text is not None:
                self.journal.text(text)
            if text is None or not self.pretty:
                self._say_started(began)
            self._say_warnings(warnings)
            self.alerts.start()
            self.upstreams.tick()
            self._certificates.look()
            self._close_all = undo.pop_all()

    @property
    def pretty(self) -> bool:
        """Whether events are written for people."""
        events = self.config.logging.events
        return events == "pretty" or (events == "auto" and os.isatty(STDERR))

    def _check_files(self) -> list[Problem]:
        found = check_files(self._source)
        errors = [problem for problem in found if problem.severity == "error"]
        if errors:
            raise ConfigInvalid(errors)
        return [*(self._source.warnings if isinstance(self._source, Loaded) else ()), *found]

    def _open_journal(self) -> Journal:
        path = self.config.logging.access.file
        try:
            access = LineWriter(LogFile(path)) if path is not None else None
        except OSError as error:
            raise LbctlError(f"logging.access.file: cannot write {path}: {error.strerror}") from None
        return Journal(self.config, LineWriter(Descriptor(STDERR)), access, pretty=self.pretty)

    def _open_limit_state(self) -> LimitState | None:
        path = self.config.node.limits_file
        return LimitState(path, self.config, self.journal.event) if path is not None else None

    def _say_started(self, descriptors: int) -> None:
        say = self.journal.event
        say("start", version=__version__, tls=self.engine.tls_library, workers=self.engine.workers)
        say(
            "limits",
            descriptors_from=descriptors,
            descriptors_to=descriptor_limit(),
            max_connections=self.engine.max_connections,
            max_unauthenticated=self.engine.max_unauthenticated,
        )
        for opened in self.opened:
            app = self.config.apps[opened.name]
            if app.plaintext:
                message = "no TLS: nobody is identified, whoever reaches the port is let in"
                say("plaintext", app=opened.name, listen=opened.listen, message=message)
            say("ready", app=opened.name, listen=opened.listen, upstreams=len(app.upstreams))

    def _say_warnings(self, warnings: list[Problem]) -> None:
        for problem in warnings:
            name = "certificate" if problem.path.split(".")[-1] in ("cert", "client_ca") else "config"
            self.journal.event(name, path=problem.path, message=problem.message)

    # ---- run

    def tick(self) -> None:
        """Once a second: says what has changed, and lets the journal do what is due."""
        now, before = self.engine.pulse(), self._pulse
        self._pulse = now
        if now.accept_errors > before.accept_errors:
            count = now.accept_errors - before.accept_errors
            message = "connections could not be accepted; out of file descriptors or memory"
            self.journal.event("accept.failed", count=count, message=message)
        self.upstreams.tick()
        self.journal.tick(now.dropped_records)

    def check_again(self) -> None:
        """Says which certificates have become a problem; they may have since the start."""
        self._say_warnings(check_files(self._source))
        self._certificates.look()

    # ---- stop

    def stop(self, drain: float) -> bool:
        """Stops listening, lets connections finish for so many seconds, ends the rest; whether all
        of them finished."""
        return self.engine.stop(drain)

    def close(self) -> None:
        """Writes the last lines. After `stop`."""
        self._close_all.close()


def serve(
    config: Config | Loaded, *, started: Started | None = None, exiting: bool = False
) -> ExitCode:
    """Runs a configuration until a signal ends it. Call on the main thread.

    SIGTERM and SIGINT stop accepting and let open connections finish, for `node.drain_timeout` at most;
    a second one ends them at once, a third the process. Signals that arrive together are one, because
    timeout(1) and process groups send them so. SIGHUP does nothing but say so.

    Args:
        config: from `lbctl.config.read`, `load` or `build`.
        started: called when all ports are open.
        exiting: the process ends after this, so signals that come later do nothing.

    Returns:
        The exit code: OK whether connections finished or were ended, FAILED when a worker hangs.

    Raises:
        ConfigInvalid, LbctlError: it did not start.
        ValueError: this is not the main thread.
    """
    _occupy_standard_descriptors()
    with Signals(*_STOPPING, signal.SIGHUP, restore=not exiting) as signals:
        service = Service(config)
        service.start(started)
        systemd.notify("READY=1")
        try:
            _run(service, signals)
            systemd.notify("STOPPING=1")
            return _drain(service, signals)
        finally:
            service.close()


def _occupy_standard_descriptors() -> None:
    """Started with stderr closed, the next socket would get its number, and the log lines with it."""
    for fd in (0, 1, STDERR):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one


def _run(service: Service, signals: Signals) -> None:
    """Until the first signal that stops."""
    check_again = time.monotonic() + FILES_AGAIN
    while True:
        for number in signals.wait(TICK):
            if number in _STOPPING:
                drain = service.config.node.drain_timeout
                service.journal.event(
                    "stop", signal=number.name, open=service.engine.open_connections(), drain_timeout_s=drain
                )
                return
            service.journal.event(
                "reload", signal=number.name, message="IGNORED  not in this version; restart to apply changes"
            )
        service.tick()
        if time.monotonic() >= check_again:
            check_again += FILES_AGAIN
            service.check_again()


def _drain(service: Service, signals: Signals) -> ExitCode:
    """Stops, with words about it, while the main thread keeps listening for signals."""
    stopper = _Stopper(service, signals)
    deadline = time.monotonic() + service.config.node.drain_timeout
    progress = time.monotonic() + TICK
    aborted = False
    while not stopper.done:
        again = [number for number in signals.wait(TICK) if number in _STOPPING]
        if again and aborted:
            os._exit(ExitCode.FAILED)
        if again:
            aborted = True
            service.journal.event("stop", signal=again[0].name, message="ending the open connections now")
            service.engine.abort_drain()
        service.tick()
        if not stopper.done and not aborted and time.monotonic() >= progress:
            progress = time.monotonic() + PROGRESS
            left = max(0.0, deadline - time.monotonic())
            service.journal.event("drain", open=service.engine.open_connections(), left_s=round(left))
    return stopper.report()


class _Stopper:
    """Stops the service on a thread of its own."""

    def __init__(self, service: Service, signals: Signals) -> None:
        self._service, self._signals = service, signals
        self._failure: LbctlError | None = None
        self._finished = False
        self.done = False
        threading.Thread(target=self._run, name="stop", daemon=True).start()

    def _run(self) -> None:
        try:
            self._finished = self._service.stop(self._service.config.node.drain_timeout)
        except LbctlError as error:
            self._failure = error
        finally:
            self.done = True
            self._signals.wake()

    def report(self) -> ExitCode:
        """Says how it went."""
        if self._failure is not None:
            self._service.journal.event("stopped", message=str(self._failure))
            return ExitCode.FAILED
        message = "all connections finished" if self._finished else "open connections were ended"
        self._service.journal.event("stopped", message=message)
        return ExitCode.OK
