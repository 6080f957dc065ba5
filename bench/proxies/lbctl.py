"""This project: as it is by default, on its other TLS engine, and with less to do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import MappingProxyType

from .base import Job, Proxy, ProxyMissing, Version, serial_hex


class LoadBalancer(Proxy):
    """This project on its default TLS engine."""

    name = "lbctl"
    config_name = "lb.yaml"
    ours = True
    differs = (
        "does not verify the CA's signature again on a certificate that it has let in, as all of tls-new are",
        "writes as many lines a second about refusals as it does by default, and sums the rest",
    )
    engine = "s2n"

    def version(self) -> Version:
        known = json.loads(self.ask([sys.executable, "-m", "lbctl", "version", "--json"]))
        library = known["tls_engines"].get(self.engine)
        if library is None:
            raise ProxyMissing(self._how_to_get())
        return Version(f"lbctl {known['lbctl']} on Python {known['python']}", library)

    def command(self, config: Path, job: Job) -> list[str]:
        return [sys.executable, "-m", "lbctl", "run", "-c", str(config)]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        clients = "\n".join(
            f'  client-{index}: {{serials: ["{serial_hex(serial)}"], apps: [bench-tls]}}'
            for index, serial in enumerate(job.certificates.serials)
        )
        return self.fill(
            job,
            (tls_port, plain_port),
            engine=self.engine,
            clients=clients,
            limits=self._limits(job),
            logged=self._logged(),
        )

    def _how_to_get(self) -> str:
        return f"{self.name} has no engine {self.engine}: install awscrt"

    def _limits(self, job: Job) -> str:
        return f"{{default: {{concurrent: {job.concurrent}}}}}"

    def _logged(self) -> float:
        return 1.0


class LoadBalancerOnOpenSSL(LoadBalancer):
    """The same on OpenSSL, to be held against peers on the same library."""

    name = "lbctl-openssl"
    engine = "openssl"
    lacks = MappingProxyType({"tcp": "it is lbctl: there is no TLS in it"})

    def _how_to_get(self) -> str:
        return (
            f"{self.name} was not compiled: install OpenSSL's headers (Debian: apt-get install libssl-dev), "
            "then this project again"
        )


class BareLoadBalancer(LoadBalancer):
    """Without limits, and without a record of a connection that was served."""

    name = "lbctl-bare"

    def _limits(self, job: Job) -> str:
        return "{}"

    def _logged(self) -> float:
        return 0.0
