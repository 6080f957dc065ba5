"""stunnel as the distribution packages it."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from .base import UNKNOWN, Job, Limit, Proxy, Version


class Stunnel(Proxy):
    """With a thread for each connection, whatever the number of workers."""

    name = "stunnel"
    install = "on Debian, apt-get install stunnel4"
    config_name = "stunnel.conf"
    lacks = MappingProxyType(
        {"tls-storm": "it has no limit of connections", "tcp": "it always speaks TLS on one side"}
    )
    has_plain = False
    differs = (
        "knows a client by its whole certificate, out of a file of all those on the list",
        "limits nobody's open connections",
        "takes the upstreams in turns",
        "logs two or three lines per connection, since no level has one",
        "has no number of workers: each connection is a thread",
    )
    limit = Limit.NONE
    least_connections = False

    def version(self) -> Version:
        said = self.ask([self._program(), "-version"])
        product = re.search(r"stunnel [\d.]+", said)
        tls = re.search(r"(?:Running +with|Compiled/running with) (.+)", said)
        return Version(product[0] if product else "stunnel", tls[1].strip() if tls else UNKNOWN)

    def command(self, config: Path, job: Job) -> list[str]:
        return [self._program(), str(config)]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        trusted = folder / "ca-and-listed.pem"
        trusted.write_text(job.certificates.ca.read_text() + job.certificates.listed.read_text())
        return self.fill(job, (tls_port, plain_port), ca_and_listed=trusted)
