"""nginx with its stream module, as the distribution packages it."""

from __future__ import annotations

import re
from pathlib import Path
from types import MappingProxyType

from .base import UNKNOWN, Job, Limit, Proxy, ProxyMissing, Version, serial_hex

_INSTALL = "on Debian, apt-get install nginx-light libnginx-mod-stream"
_MODULE = "ngx_stream_module.so"


class Nginx(Proxy):
    """With one worker process for each worker, and its master."""

    name = "nginx"
    install = _INSTALL
    config_name = "nginx.conf"
    lacks = MappingProxyType(
        {"tls-storm": "it checks its limit before the handshake, so it counts addresses, not clients"}
    )
    differs = (
        "limits the open connections of a source address, also on the TLS port",
        "answers a client's close_notify with the end of TCP alone",
    )
    limit = Limit.SOURCE
    log_name = "nginx-access.log"

    def version(self) -> Version:
        said = self.ask([self._program(), "-V"])
        self._load_module(said)
        product = re.search(r"nginx version: (\S+)", said)
        tls = re.search(r"running with (OpenSSL [^)]+)", said) or re.search(r"built with (\S+ [^(\n]+)", said)
        return Version(product[1] if product else "nginx", tls[1].strip() if tls else UNKNOWN)

    def command(self, config: Path, job: Job) -> list[str]:
        return [self._program(), "-p", ".", "-e", "stderr", "-c", str(config)]

    def configuration(self, job: Job, folder: Path, tls_port: int, plain_port: int) -> str:
        serials = folder / "serials.map"
        serials.write_text(
            "".join(f"{serial_hex(serial)} upstreams;\n" for serial in job.certificates.serials)
        )
        return self.fill(
            job,
            (tls_port, plain_port),
            serials=serials,
            descriptors=2 * job.max_connections + 100,  # those to upstreams count as well
            load_module=self._load_module(self.ask([self._program(), "-V"])),
        )

    def _load_module(self, build: str) -> str:
        """The line that loads the stream module; nothing when it is part of the program."""
        if re.search(r"--with-stream(\s|$)", build):
            return ""
        path = re.search(r"--modules-path=(\S+)", build)
        module = Path(path[1] if path else "/usr/lib/nginx/modules") / _MODULE
        if not module.exists():
            raise ProxyMissing(f"nginx is here without its stream module: {_INSTALL}")
        return f"load_module {module};"
