"""What systemd expects of a service (sd_notify(3)), without its library."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str] | None = None) -> bool:
    """Tells the service manager something such as ``READY=1``; whether there is one that took it.

    A manager that does not listen is no reason to stop, nor to wait.
    """
    path = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(address)
        sock.send(state.encode())
        return True
    return False


def is_service(environ: Mapping[str, str], pid: int) -> bool:
    """Whether systemd started this very process as a service, not one of its ancestors."""
    return bool(environ.get("NOTIFY_SOCKET")) or environ.get("SYSTEMD_EXEC_PID") == str(pid)
