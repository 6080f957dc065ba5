"""Where proxies are measured: CPUs of their own, the load and the upstreams on the others."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .certificates import Certificates
from .proxies import Job, Proxy, ProxyMissing, Version
from .upstream import Upstreams


def usable_cpus() -> list[int]:
    """Those of this process.

    Raises:
        OSError: they are too few to keep anything apart.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise OSError("needs two CPUs, so that what is measured has one of its own")
    return usable


def require_programs() -> None:
    """Raises OSError: one is missing that starts proxies on their CPUs, or makes certificates."""
    missing = [name for name in ("taskset", "openssl") if not shutil.which(name)]
    if missing:
        raise OSError(f"needs {' and '.join(missing)} (Debian: apt-get install util-linux openssl)")


@contextmanager
def place(
    certificates: Certificates, usable: Sequence[int], count: int, *, as_packaged: bool = False
) -> Iterator[tuple[Job, list[int]]]:
    """So many CPUs for the proxy; load and upstreams have the others, or share all when none is left."""
    os.sched_setaffinity(0, usable[count:] or usable)
    try:
        with Upstreams() as upstreams:
            yield Job(certificates, upstreams.ports, as_packaged=as_packaged), list(usable[:count])
    finally:
        os.sched_setaffinity(0, usable)


def installed(proxies: Sequence[Proxy]) -> tuple[dict[Proxy, Version], list[str]]:
    """The proxies that are there; and those that are not, with how to get them."""
    found: dict[Proxy, Version] = {}
    skipped = []
    for proxy in proxies:
        try:
            found[proxy] = proxy.version()
        except ProxyMissing as missing:
            print(f"bench: skipped: {missing}", file=sys.stderr)
            skipped.append(str(missing))
    return found, skipped
