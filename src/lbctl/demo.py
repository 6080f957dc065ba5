"""The demo: a balancer, two upstreams and certificates, from nothing, on loopback only.

Everything is real but the upstreams, which are in this process. The certificates are made in ./certs
and reused; the configuration exists in memory alone.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lbctl import __version__, certificates, daemon
from lbctl.certificates import DemoCertificates, DemoClient
from lbctl.config import Config, build
from lbctl.daemon import Service
from lbctl.demo_upstream import DemoUpstream
from lbctl.engine_port import CannotListen
from lbctl.errors import ExitCode, LbctlError
from lbctl.logs.printable import printable
from lbctl.logs.records import serial_text

APP = "hello"
LISTEN = "127.0.0.1:8443"
UPSTREAMS = ("127.0.0.1:19001", "127.0.0.1:19002")
DIRECTORY = Path("certs")
LIMITS: dict[str, Any] = {"rate": "20/s", "burst": 40, "concurrent": 10}


def run(why: str) -> ExitCode:
    """Runs the demo until a signal ends it.

    Args:
        why: what made it the demo, for the banner.

    Raises:
        LbctlError: a port is taken, or the certificates in ./certs cannot be used.
    """
    certs = certificates.demo_certificates(DIRECTORY)
    with contextlib.ExitStack() as stack:
        upstreams = [stack.enter_context(DemoUpstream(address)) for address in UPSTREAMS]
        config = configuration(certs, [upstream.address for upstream in upstreams])

        def started(service: Service) -> str:
            for upstream in upstreams:
                upstream.ask_about_clients(service.engine.connections)
            return _banner(service, certs, why)

        try:
            return daemon.serve(config, started=started, exiting=True)
        except CannotListen as error:
            raise LbctlError(f"the demo cannot start: {error}") from None


def configuration(certs: DemoCertificates, upstreams: Sequence[str]) -> Config:
    """The demo's configuration, as a file would spell it."""
    return build(
        {
            "version": 1,
            "tls": {
                "cert": str(certs.server_cert),
                "key": str(certs.server_key),
                "client_ca": str(certs.ca),
                "expiry_warning": [],  # a week is all a demo gets
            },
            "limits": {"default": LIMITS},
            "apps": {APP: {"listen": LISTEN, "upstreams": [{"address": address} for address in upstreams]}},
            "clients": {
                certs.alice.name: {"serials": [certs.alice.serial], "apps": [APP]},
                certs.mallory.name: {"serials": [certs.mallory.serial], "apps": []},
            },
        }
    )


def plan() -> str:
    """What `run` would do."""
    return (
        f"would open {LISTEN} for {APP} → {', '.join(UPSTREAMS)}  (the demo, built-in upstreams)\n"
        f"would make or reuse certificates in ./{DIRECTORY}"
    )


def _banner(service: Service, certs: DemoCertificates, why: str) -> str:
    config, engine = service.config, service.engine
    app, limits = config.apps[APP], config.limits["default"]
    addresses = ", ".join(upstream.place for upstream in app.upstreams)
    state = "new" if certs.created else "reused"
    print_ = certs.ca_fingerprint
    workers = f"{engine.workers} worker{'' if engine.workers == 1 else 's'}"
    return f"""\
lbctl {__version__} · {_library(engine.tls_library)} · {workers} · DEMO ({why}; loopback only)

  certificates  ./{certs.directory}  ({state} CA, SHA-256 {print_[:5]}:…:{print_[-2:]}, {_validity(certs)})
                {_client(certs.alice, config)}
                {_client(certs.mallory, config)}
  app {APP:<9} {app.listen} → {addresses}   (built-in)
  limits        {limits.rate:g} connections/s, burst {limits.burst}, {limits.concurrent} at once, per client

try it
  {_curl(certs, certs.alice)}
  {_curl(certs, certs.mallory)}
keep it
  lbctl init            # writes lb.yaml with comments, pointing at ./{certs.directory}
ready in {_age():.1f} s · Ctrl-C drains, twice quits"""


def _age() -> float:
    """Seconds since this process began, the interpreter's own start included (proc(5))."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _library(description: str) -> str:
    """``s2n-tls on AWS-LC (awscrt 0.38.1)`` as ``s2n (AWS-LC)``."""
    name, _, rest = description.partition("-tls on ")
    return f"{name} ({rest.partition(' (')[0]})" if rest else description


def _validity(certs: DemoCertificates) -> str:
    if certs.created:
        return "valid 7 days"
    return f"valid until {certs.not_after:%d %b %H:%M} UTC"


def _client(client: DemoClient, config: Config) -> str:
    apps = ", ".join(config.clients[client.name].apps) or "nothing"
    return f"{client.name:<8} serial {serial_text(client.serial)}   may use: {apps}"


def _curl(certs: DemoCertificates, client: DemoClient) -> str:
    port = LISTEN.rpartition(":")[2]
    files = f"--cacert {certs.ca} --cert {client.cert} --key {client.key}"
    return printable(f"curl {files} https://localhost:{port}/")
