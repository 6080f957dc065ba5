"""What a worker needs before it runs: a TLS library that fits, and listeners that it hears."""

import errno
import socket
import tempfile
from types import ModuleType

import pytest

KIB = 1024


@pytest.mark.parametrize(("record", "call"), [(22, 16 * KIB), (2 * KIB, 0), (22, 1 << 40)])
def test_a_library_whose_records_do_not_fit_the_buffers_is_refused(
    probes: ModuleType, record: int, call: int
) -> None:
    assert probes.worker_for(record, call) == errno.EMSGSIZE


def test_a_listener_that_cannot_be_watched_pauses_accepting(probes: ModuleType) -> None:
    """Nobody stays deaf in silence: it is counted, and tried again after the pause. epoll refuses files."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
        tempfile.TemporaryFile() as file,
    ):
        good = probes.Watcher([server.fileno()])
        good.watch()
        assert (good.errors, good.paused, good.ready) == (0, False, 1)
        bad = probes.Watcher([server.fileno(), file.fileno()])
        bad.watch()
        assert (bad.errors, bad.paused, bad.ready) == (1, True, 0)
