"""What is done to sockets besides reading and writing: what epoll watches, and options."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from types import ModuleType

import pytest
from kit.congestion import set_congestion_control
from kit.fixtures import Keep
from kit.upstreams import Blackhole, Refuser
from kit.waiting import wait_until


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


Pair = tuple[socket.socket, socket.socket]


class TestInterest:
    def test_what_is_wanted_is_told_and_nothing_else(self, probes: ModuleType, pair: Pair) -> None:
        near, far = pair
        interest = probes.Interest(near.fileno())
        assert interest.want(reading=True) == 0
        assert interest.events() == []
        far.sendall(b"x")
        wait_until(lambda: interest.events() == [{"in"}])
        assert interest.want(writing=True) == 0
        assert interest.events() == [{"out"}]
        assert interest.want() == 0
        assert interest.events() == []

    def test_who_has_hung_up_and_wants_nothing_wakes_nobody(self, probes: ModuleType, pair: Pair) -> None:
        """HUP cannot be masked: the socket must leave the set, and come back when it wants something."""
        near, far = pair
        interest = probes.Interest(near.fileno())
        interest.want()
        near.shutdown(socket.SHUT_RDWR)
        far.shutdown(socket.SHUT_RDWR)
        wait_until(lambda: interest.events() == [{"hup"}])
        assert interest.want() == 0
        assert interest.events() == []
        assert interest.want(reading=True) == 0
        assert interest.events() == [{"in", "hup"}]

    def test_a_socket_that_is_gone_is_an_error(self, probes: ModuleType) -> None:
        nobody_has = 1_000_000
        assert probes.Interest(nobody_has).want(reading=True) == errno.EBADF


class TestOptions:
    def test_tuned(self, probes: ModuleType, pair: Pair) -> None:
        near, _ = pair
        assert probes.tune(near.fileno(), 60) == 0
        tcp = socket.IPPROTO_TCP
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        wanted = {
            socket.TCP_NODELAY: 1,
            socket.TCP_KEEPIDLE: 60,
            socket.TCP_KEEPINTVL: 10,
            socket.TCP_USER_TIMEOUT: 90_000,
        }
        assert {option: near.getsockopt(tcp, option) for option in wanted} == wanted

    def test_without_keepalive(self, probes: ModuleType, pair: Pair) -> None:
        near, _ = pair
        assert probes.tune(near.fileno(), 0) == 0
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        assert near.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    @pytest.mark.parametrize(("congestion", "paced"), [("cubic", False), ("reno", False), ("bbr", True)])
    def test_whether_bytes_are_let_out_by_timers(
        self, probes: ModuleType, pair: Pair, congestion: str, paced: bool
    ) -> None:
        near, _ = pair
        set_congestion_control(near, congestion)
        assert probes.is_paced(near.fileno()) is paced

    def test_what_is_no_tcp_is_not_paced(self, probes: ModuleType) -> None:
        near, far = socket.socketpair()
        with near, far:
            assert not probes.is_paced(near.fileno())

    def test_a_reset_and_the_error_it_leaves(self, probes: ModuleType, pair: Pair) -> None:
        near, far = pair
        assert probes.pending_error(far.fileno()) == 0
        probes.will_reset(near.fileno())
        near.close()
        wait_until(lambda: probes.pending_error(far.fileno()) == errno.ECONNRESET)
        assert probes.pending_error(far.fileno()) == 0  # cleared by reading it

    def test_what_the_peer_has_not_acknowledged(self, probes: ModuleType, pair: Pair) -> None:
        near, far = pair
        near.setblocking(False)
        far.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                near.send(bytes(65536))
        assert probes.unacknowledged(near.fileno()) > 0

        def all_taken() -> bool:
            with contextlib.suppress(BlockingIOError):
                while far.recv(1 << 20):
                    pass
            return bool(probes.unacknowledged(near.fileno()) == 0)

        wait_until(all_taken)


class TestDialling:
    """Whether a dial that is in progress has succeeded, asked without waiting."""

    def dial(self, port: int) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        assert sock.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        return sock

    def test_who_is_on_this_machine_has_answered(self, probes: ModuleType, keep: Keep) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            sock = keep(self.dial(server.getsockname()[1]))
            assert probes.is_connected(sock.fileno())

    def test_over_ipv6(self, probes: ModuleType) -> None:
        with (
            socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
            socket.create_connection(server.getsockname()[:2]) as sock,
        ):
            assert probes.is_connected(sock.fileno())

    def test_who_has_said_all_already(self, probes: ModuleType, pair: Pair) -> None:
        near, far = pair
        far.sendall(b"hello")
        far.close()
        assert near.recv(5) == b"hello"
        assert near.recv(1) == b""
        assert probes.is_connected(near.fileno())

    def test_refused(self, probes: ModuleType, keep: Keep) -> None:
        """Also by now; why, epoll tells and then the error of the socket."""
        sock = keep(self.dial(keep(Refuser()).port))
        assert not probes.is_connected(sock.fileno())
        assert probes.pending_error(sock.fileno()) == errno.ECONNREFUSED

    def test_no_answer_yet(self, probes: ModuleType, keep: Keep) -> None:
        sock = keep(self.dial(keep(Blackhole()).port))
        assert not probes.is_connected(sock.fileno())
        assert probes.pending_error(sock.fileno()) == 0

    def test_nobody_was_dialled(self, probes: ModuleType) -> None:
        with socket.socket() as sock:
            assert not probes.is_connected(sock.fileno())
