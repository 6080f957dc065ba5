"""`lbctl run` as a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import lbctl
from kit.waiting import PATIENCE, wait_until

if TYPE_CHECKING:
    from kit.pki import Pki

_SOURCES = str(Path(lbctl.__file__).parent.parent)


def environment(**more: str) -> dict[str, str]:
    """Ours without what the balancer reads, and `lbctl` importable from where it was imported here."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("LBCTL_", "NOTIFY_"))}
    path = os.pathsep.join(filter(None, (_SOURCES, os.environ.get("PYTHONPATH"))))
    return {**ours, "PYTHONPATH": path, **more}


def configuration(pki: Pki, upstream: str, **changes: Any) -> dict[str, Any]:
    """One TLS app `web` on a free port, alice may use it."""
    return {
        "version": 1,
        "node": {"name": "lb-1", "workers": 2, "drain_timeout": "10s"},
        "tls": {"cert": str(pki.server.cert), "key": str(pki.server.key), "client_ca": str(pki.ca.cert)},
        "apps": {"web": {"listen": "127.0.0.1:0", "upstreams": [{"address": upstream}]}},
        "clients": {"alice": {"serials": [f"{pki.alice.serial:X}"], "apps": ["web"]}},
        **changes,
    }


class Daemon:
    """Starts `python -m lbctl run`; stderr goes to a file. Leaving kills what is left of it.

    Args:
        folder: where it runs; stderr and the configuration are written there.
        config: written as JSON, which is YAML too, and given with ``-c``; None: no ``-c``.
        arguments: more arguments.
        environ: more environment variables.
        stderr: where stderr goes instead of the file.
        command: instead of ``-m lbctl run``.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | None = None,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        stderr: int | None = None,
        command: Sequence[str] = ("-m", "lbctl", "run"),
    ) -> None:
        self.stderr = folder / "stderr"
        given: list[str] = []
        if config is not None:
            (folder / "lb.yaml").write_text(json.dumps(config))
            given = ["-c", "lb.yaml"]
        with self.stderr.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *command, *given, *arguments],
                cwd=folder,
                env=environment(**(environ or {})),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file if stderr is None else stderr,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if error is not None:
            error.add_note(f"lbctl wrote:\n{self.text()[-4000:]}")

    def text(self) -> str:
        """What it wrote to stderr so far."""
        return self.stderr.read_text()

    def events(self, name: str, **fields: Any) -> list[dict[str, Any]]:
        """The JSON lines on stderr with this event and these fields."""
        found = []
        for line in self.text().splitlines(keepends=True):
            if line.startswith("{") and line.endswith("\n"):
                entry = json.loads(line)
                if entry["event"] == name and fields.items() <= entry.items():
                    found.append(entry)
        return found

    def wait_event(self, name: str, **fields: Any) -> dict[str, Any]:
        """The first such line, when it is there."""

        def look() -> list[dict[str, Any]]:
            ended = self.process.poll() is not None  # looked at first: its last lines count
            found = self.events(name, **fields)
            if ended and not found:
                raise AssertionError(f"ended ({self.process.returncode}) without {name}: {self.text()}")
            return found

        return wait_until(look, f"event {name} {fields}")[0]

    def port(self, app: str = "web") -> int:
        """Where an app listens, when it does."""
        listen: str = self.wait_event("ready", app=app)["listen"]
        return int(listen.rpartition(":")[2])

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """Its exit code, when it has one."""
        return self.process.wait(timeout)
