"""What a worker needs before it runs: a TLS library that fits, and listeners that it hears. And whom its
events reach."""

import errno
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
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


# ---- events --------------------------------------------------------------------------------------


class Ends:
    """The two sockets of a connection, and the far ends that speak to it."""

    def __init__(self, stack: ExitStack) -> None:
        self.client, self._client_peer = map(stack.enter_context, socket.socketpair())
        self.upstream, self._upstream_peer = map(stack.enter_context, socket.socketpair())
        self.filenos = self.client.fileno(), self.upstream.fileno()

    def speak(self) -> None:
        """Both far ends send something."""
        self._client_peer.sendall(b"from the client")
        self._upstream_peer.sendall(b"from the upstream")


@pytest.fixture
def ends() -> Iterator[tuple[Ends, Ends]]:
    """Of two connections."""
    with ExitStack() as stack:
        yield Ends(stack), Ends(stack)


def test_an_event_reaches_its_connection(probes: ModuleType, ends: tuple[Ends, Ends]) -> None:
    loop = probes.Loop()
    quiet, spoken = (loop.open(*pair.filenos) for pair in ends)
    ends[1].speak()
    assert loop.collect() == 2
    loop.dispatch()
    assert loop.reached(spoken) == {"client", "upstream"}
    assert loop.reached(quiet) == set()


def test_a_stale_event_never_reaches_who_has_the_slot_now(
    probes: ModuleType, ends: tuple[Ends, Ends]
) -> None:
    """Between epoll's answer and the turn of an event its connection ends and another one gets its place, as
    when the same batch holds the other leg's reset and a newcomer at a listener."""
    loop = probes.Loop()
    gone = loop.open(*ends[0].filenos)
    ends[0].speak()
    assert loop.collect() == 2
    loop.close(gone)
    here = loop.open(*ends[1].filenos)
    assert here == gone
    ends[1].speak()
    loop.dispatch()
    assert loop.reached(here) == set()
    assert loop.collect() == 2
    loop.dispatch()
    assert loop.reached(here) == {"client", "upstream"}


def test_an_event_of_a_slot_that_nobody_has_is_dropped(probes: ModuleType, ends: tuple[Ends, Ends]) -> None:
    loop = probes.Loop()
    gone = loop.open(*ends[0].filenos)
    ends[0].speak()
    assert loop.collect() == 2
    loop.close(gone)
    loop.dispatch()
    assert loop.reached(gone) == set()


def test_who_is_about_to_be_closed_hears_nothing_more(probes: ModuleType, ends: tuple[Ends, Ends]) -> None:
    loop = probes.Loop()
    doomed = loop.open(*ends[0].filenos)
    ends[0].speak()
    assert loop.collect() == 2
    loop.doom(doomed)
    loop.dispatch()
    assert loop.reached(doomed) == set()
