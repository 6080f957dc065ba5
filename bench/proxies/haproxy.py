"""HAProxy as the distribution packages it."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from .base import CONFIGURATIONS, UNKNOWN, Job, Proxy, Version, serial_hex


class HAProxy(Proxy):
    """With one thread for each worker."""

    name = "haproxy"
    install = "on Debian, apt-get install haproxy"
    config_name = "haproxy.cfg"
    differs = ("writes no line about a connection without TLS that it refuses",)
    environment = MappingProxyType({"OPENSSL_CONF": str(CONFIGURATIONS / "haproxy-openssl.cnf")})

    def version(self) -> Version:
        said = self.ask([self._program(), "-vv"])
        tls = re.search(r"^Running on OpenSSL version : (.+)$", said, re.MULTILINE)
        return Version(said.split(" - ")[0].strip(), tls[1].strip() if tls else UNKNOWN)

    def command(self, config: Path, job: Job) -> list[str]:
        return [self._program(), "-db", "-f", str(config)]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        serials = folder / "serials.lst"
        serials.write_text("".join(f"{serial_hex(serial)}\n" for serial in job.certificates.serials))
        return self.fill(
            job, (tls_port, plain_port), server_pem=job.certificates.server_combined, serials=serials
        )
