"""The upstreams of a run: cheap servers. A line of the client says what to do; when it is done, another may.

    echo ...\\n   everything is sent back, this line included, for good
    sink N\\n     N bytes are taken and thrown away, then "N\\n" is answered
    source N\\n   N bytes of a known pattern are sent

They run on the CPU of the load, never on the proxy's, and each is one process with one loop that does not
need the interpreter (`native/upstream.pyx`).
"""

from __future__ import annotations

import multiprocessing
import signal
import socket
from types import TracebackType

from .ending import undisturbed
from .native.load import LoadFailed
from .native.upstream import serve

PATTERN = bytes(range(251)) * ((1 << 20) // 251 + 1)  # 251 is prime: a shifted copy never matches


def _serve(listening: int, pattern: bytes) -> None:
    """A native loop runs no handlers of Python, so none may be inherited. Who interrupts the bench with the
    keyboard interrupts this too, and it is to be ended by the bench."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(listening, pattern)


class Upstreams:
    """Two upstream processes on ephemeral loopback ports, ended on exit.

    Raises (at the exit): LoadFailed: one has ended by itself; another failure is given a note of that.
    """

    def __init__(self) -> None:
        self.ports: tuple[int, int] = (0, 0)
        self._processes: list[multiprocessing.process.BaseProcess] = []

    def __enter__(self) -> Upstreams:
        fork = multiprocessing.get_context("fork")
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
                listener.setblocking(False)
                ports.append(listener.getsockname()[1])
                process = fork.Process(target=_serve, args=(listener.fileno(), PATTERN), daemon=True)
                with undisturbed():
                    process.start()
                self._processes.append(process)
        self.ports = (ports[0], ports[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = [process.exitcode for process in self._processes if process.exitcode is not None]
        for process in self._processes:
            process.terminate()
            process.join()
            process.close()
        if ended:
            words = f"an upstream of the bench ended by itself (exit {ended[0]}): no measurement holds"
            if error is None:
                raise LoadFailed(words)
            error.add_note(words)
