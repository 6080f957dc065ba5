"""Stage 7, dial, and what follows: TLS to the upstream, verified, and ended as what it is."""

from __future__ import annotations

import random
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from kit.balancer import Balancer
from kit.clients import connect, plain
from kit.fixtures import Keep, MakeBalancer
from kit.pki import SERVER, Pki
from kit.sockets import End, read_exactly, reset
from kit.tls_upstream import TlsSession, dumps_certificate, tls_echo, tls_upstream
from kit.upstreams import Refuser, Session, Upstream, hold
from kit.waiting import wait_until

from lbcore import UpstreamServer, UpstreamTLS

MIB = 1 << 20
BAD_PEM = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def server(upstream: Any, pki: Pki, **options: Any) -> UpstreamServer:
    """One that is reached by TLS, with the right CA unless said otherwise."""
    return UpstreamServer(upstream.address, tls=UpstreamTLS(**{"ca": pki.ca.cert, **options}))


def refused(lb: Balancer, pki: Pki) -> str:
    """Why nobody was reached: the TLS library's words."""
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record(event="conn.deny")
    assert (record.reason, record.stage) == ("upstream_tls", "dial")
    assert record.upstream is not None
    return record.tls_error or ""


# ---- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("plaintext", [False, True], ids=["tls client", "plaintext client"])
def test_bytes_both_ways(balance: MakeBalancer, keep: Keep, pki: Pki, plaintext: bool) -> None:
    lb = balance(server(keep(tls_upstream(pki)), pki), plaintext=plaintext)
    data = random.Random(3).randbytes(6 * MIB)
    if plaintext:
        with plain(lb.port) as sock:
            sender = threading.Thread(target=sock.sendall, args=(data,))
            sender.start()
            assert read_exactly(sock, len(data)) == data
            sender.join(10)
    else:
        with connect(pki, lb.port) as client:
            received = bytearray()
            for start in range(0, len(data), 100_000):
                client.send(data[start : start + 100_000])
                received += client.receive(len(data[start : start + 100_000]))
            assert received == data
    record = lb.record()
    assert (record.bytes_in, record.bytes_out, record.reason) == (len(data), len(data), "client_closed")


def test_plain_and_tls_upstreams_side_by_side(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    secure, plain_one = keep(tls_upstream(pki)), keep(Upstream())
    lb = balance(server(secure, pki), plain_one)
    clients = [keep(connect(pki, lb.port)) for _ in range(6)]
    for number, client in enumerate(clients):
        client.echo(b"client %d" % number)
    assert [one.in_flight for one in lb.app.upstreams] == [3, 3]
    assert (secure.accepted, plain_one.accepted) == (3, 3)
    for client in clients:
        client.close()


def test_a_server_that_speaks_first(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Its greeting may come with the end of the handshake."""

    def greet(tls: TlsSession) -> None:
        tls.send(b"hello, this is the server")
        tls_echo(tls)

    lb = balance(server(keep(tls_upstream(pki, greet)), pki))
    for _ in range(10):
        with connect(pki, lb.port) as client:
            assert client.receive(25) == b"hello, this is the server"
            client.echo(b"x")


def test_what_a_client_says_early_is_not_lost(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """It says it before there is a connection to an upstream, and one attempt fails first."""
    secure = keep(tls_upstream(pki))
    lb = balance(keep(Refuser()), server(secure, pki), app={"passive_failures": 0})
    data = bytes(range(256)) * 60
    for _ in range(4):
        with connect(pki, lb.port) as client:
            client.send(data)
            assert client.receive(len(data)) == data


def test_idle_connections_work_after_their_buffers_went_back(
    balance: MakeBalancer, keep: Keep, pki: Pki
) -> None:
    lb = balance(server(keep(tls_upstream(pki)), pki))
    with connect(pki, lb.port) as client:
        for _ in range(3):
            client.echo(bytes(100_000))
            wakeups = lb.engine.stats()["workers"]
            wait_until(lambda: lb.engine.stats()["workers"] != wakeups, "it has gone quiet")  # noqa: B023


# ---- who it is -----------------------------------------------------------------------------------


def test_a_certificate_of_another_ca(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(server(keep(tls_upstream(pki)), pki, ca=pki.rogue.cert))
    assert refused(lb, pki)
    assert lb.app.upstreams[0].errors == 1


@pytest.mark.parametrize("name", ["other.example", "127.0.0.2", "::1:2"])
def test_a_certificate_for_somebody_else(balance: MakeBalancer, keep: Keep, pki: Pki, name: str) -> None:
    lb = balance(server(keep(tls_upstream(pki)), pki, verify_name=name))
    assert refused(lb, pki)


@pytest.mark.parametrize("name", [None, "127.0.0.1", "localhost", "LOCALHOST", "::1", "0:0:0:0:0:0:0:1"])
def test_its_own_names(balance: MakeBalancer, keep: Keep, pki: Pki, name: str | None) -> None:
    """By default its address, which may be in the certificate as well."""
    lb = balance(server(keep(tls_upstream(pki)), pki, verify_name=name))
    with connect(pki, lb.port) as client:
        client.echo(b"x")


def test_wildcards(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    identity = pki.ca.issue("wild", usages=SERVER, addresses=["*.example.org"])
    upstream = keep(tls_upstream(pki, identity=identity))
    lb = balance(server(upstream, pki, verify_name="db.example.org"))
    lb.policy.allow(pki.alice, "web", "deep")
    deep = lb.add("deep", server(upstream, pki, verify_name="a.db.example.org"))
    with connect(pki, lb.port) as client:
        client.echo(b"x")
    with connect(pki, deep.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    assert lb.record(app="deep").reason == "upstream_tls"


def test_an_expired_certificate(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    from kit.pki import DAY

    identity = pki.ca.issue("late", usages=SERVER, addresses=["127.0.0.1"], starts=-3 * DAY, ends=-DAY)
    lb = balance(server(keep(tls_upstream(pki, identity=identity)), pki))
    assert refused(lb, pki)


def test_tls_1_2(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(server(keep(tls_upstream(pki, newest=ssl.TLSVersion.TLSv1_2)), pki))
    assert refused(lb, pki)


def test_who_is_not_right_is_not_the_last_word(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """The next upstream is tried, within the attempts of the connection; its failures put it out."""
    wrong, right = keep(tls_upstream(pki)), keep(tls_upstream(pki))
    lb = balance(
        server(wrong, pki, verify_name="other.example"), server(right, pki),
        app={"passive_failures": 2, "passive_eject": 60.0},
    )  # fmt: skip
    for _ in range(8):
        with connect(pki, lb.port) as client:
            client.echo(b"x")
    assert lb.app.upstreams[0].state == "quarantined"
    assert all(record.tls_error is None for record in lb.records.wait(8))


# ---- what we show --------------------------------------------------------------------------------


def test_it_may_ask_who_we_are(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(tls_upstream(pki, dumps_certificate, wants_certificate=True))
    lb = balance(server(upstream, pki, cert=pki.bob.cert, key=pki.bob.key))
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (str(pki.bob.serial).encode(), End.CLOSE_NOTIFY)


def test_each_is_shown_what_is_for_it(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Upstreams that have their files in common share what was loaded, and no others do."""
    identities = [pki.bob, pki.client(), pki.bob]
    names = ["127.0.0.1", None, "localhost"]
    upstreams = [keep(tls_upstream(pki, dumps_certificate, wants_certificate=True)) for _ in names]
    lb = balance(*(
        server(upstream, pki, cert=identity.cert, key=identity.key, verify_name=name)
        for upstream, identity, name in zip(upstreams, identities, names, strict=True)
    ))  # fmt: skip
    shown = {}
    for number in range(6):
        with connect(pki, lb.port) as client:
            serial, end = client.receive_to_end()
            assert end is End.CLOSE_NOTIFY
        shown[lb.records.wait(number + 1)[-1].upstream] = int(serial)
    expected = zip(upstreams, identities, strict=True)
    assert shown == {upstream.address: identity.serial for upstream, identity in expected}


def test_it_asks_and_we_have_nothing_to_show(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """In TLS 1.3 it says no only after we have taken the handshake for finished."""
    lb = balance(server(keep(tls_upstream(pki, wants_certificate=True)), pki))
    with connect(pki, lb.port) as client:
        assert client.receive_to_end()[1] is not End.CLOSE_NOTIFY
    assert lb.record().reason in ("upstream_reset", "upstream_truncated")


# ---- ends ----------------------------------------------------------------------------------------


def test_half_close_both_ways(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    def answer_late(tls: TlsSession) -> None:
        tls.collect()
        tls.send(b"late" * 1000)
        tls.send_close_notify()

    def end_early(tls: TlsSession) -> None:
        tls.send(b"early")
        tls.send_close_notify()
        tls.collect()

    late, early = keep(tls_upstream(pki, answer_late)), keep(tls_upstream(pki, end_early))
    lb = balance(server(late, pki))
    lb.policy.allow(pki.alice, "web", "early")
    other = lb.add("early", server(early, pki))
    with connect(pki, lb.port) as client:
        client.send(b"a question")
        client.send_close_notify()
        assert client.receive_to_end() == (b"late" * 1000, End.CLOSE_NOTIFY)
    with connect(pki, other.port) as client:
        assert client.receive_to_end() == (b"early", End.CLOSE_NOTIFY)
        client.send(bytes(300_000))
        client.send_close_notify()
        assert early.session().wait_end() is End.CLOSE_NOTIFY
    assert (len(early.session().received), late.session().ended) == (300_000, End.CLOSE_NOTIFY)
    assert lb.record(app="web").reason == "client_closed"
    assert lb.record(app="early").reason == "upstream_closed"


@pytest.mark.parametrize("end", ["fin", "reset", "garbage"])
def test_an_upstream_that_breaks_off_never_looks_complete(
    balance: MakeBalancer, keep: Keep, pki: Pki, end: str
) -> None:
    data = bytes(200_000)

    def break_off(tls: TlsSession) -> None:
        tls.receive_some()
        tls.send(data)
        sock = tls.session.sock
        if end == "reset":
            tls.receive_some()
            reset(sock)
            return
        if end == "garbage":
            sock.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        sock.close()

    lb = balance(server(keep(tls_upstream(pki, break_off)), pki))
    with connect(pki, lb.port) as client:
        client.send(b"go")
        assert client.receive(len(data)) == data
        if end == "reset":
            client.send(b"and now")
        received, how = client.receive_to_end()
    assert received == b""
    assert how is not End.CLOSE_NOTIFY
    record = lb.record()
    assert record.reason == ("upstream_truncated" if end == "fin" else "upstream_reset")
    assert (record.tls_error is not None) == (end == "garbage")


@pytest.mark.parametrize("end", ["fin", "reset"])
def test_a_client_that_breaks_off_never_looks_complete(
    balance: MakeBalancer, keep: Keep, pki: Pki, end: str
) -> None:
    upstream = keep(tls_upstream(pki, lambda tls: tls.collect()))
    lb = balance(server(upstream, pki))
    with connect(pki, lb.port) as client:
        lb.wait_open(1)
        client.send(b"x" * 1000)
        wait_until(lambda: len(upstream.session().received) == 1000, "it has arrived")
        client.send_fin() if end == "fin" else client.reset()
        assert upstream.session().wait_end() is End.RESET
    assert lb.record().reason == ("client_truncated" if end == "fin" else "client_reset")


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [hold, "silent after hello"], ids=["silent", "half a handshake"])
def test_the_deadline_of_the_dial_covers_the_handshake(
    balance: MakeBalancer, keep: Keep, pki: Pki, script: Any
) -> None:
    def half(session: Session) -> None:
        session.sock.recv(1 << 16)
        session.sock.sendall(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03")
        session.released.wait()

    upstream = keep(Upstream(hold if script is hold else half))
    lb = balance(server(upstream, pki), app={"connect_timeout": 0.5})
    with connect(pki, lb.port) as client:
        assert client.receive_to_end() == (b"", End.CLOSE_NOTIFY)
    record = lb.record()
    assert record.reason == "connect_failed"
    assert 500 <= record.duration_ms < 1000


def test_a_client_that_leaves_during_the_handshake(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    upstream = keep(Upstream(hold))
    lb = balance(server(upstream, pki), app={"connect_timeout": 30.0})
    with connect(pki, lb.port) as client:
        lb.wait_open(1, "dial")
        upstream.session()
        client.reset()
        assert lb.record().reason == "client_gone"
    upstream.session().released.set()
    assert upstream.session().wait_end() in (End.RESET, End.FIN)


# ---- set-up --------------------------------------------------------------------------------------


def test_what_cannot_be_used_is_said_before_anything_listens(
    balance: MakeBalancer, keep: Keep, upstream: Upstream, pki: Pki, tmp_path: Any
) -> None:
    lb = balance(upstream, plaintext=True)
    with pytest.raises(FileNotFoundError):
        lb.add("none", server(upstream, pki, ca=tmp_path / "none.pem"), plaintext=True)
    with pytest.raises(ValueError, match="tls: CA"):
        lb.add("bad", server(upstream, pki, ca=BAD_PEM), plaintext=True)
    with pytest.raises(ValueError, match=r"tls: (certificate|key)"):
        lb.add("pair", server(upstream, pki, cert=pki.bob.cert, key=pki.alice.key), plaintext=True)
    with pytest.raises(ValueError, match="cert, key: both or neither"):
        UpstreamTLS(ca=pki.ca.cert, cert=pki.bob.cert)
    with pytest.raises(TypeError, match="ca: "):
        UpstreamTLS(ca=None)  # type: ignore[arg-type]
    for name in ("", "a b", "a..b", "x" * 64 + ".example", "*.example"):
        with pytest.raises(ValueError, match="verify_name"):
            UpstreamTLS(ca=pki.ca.cert, verify_name=name)
    with pytest.raises(ValueError, match="a unix socket has no name"):
        UpstreamServer("unix:/run/app.sock", tls=UpstreamTLS(ca=pki.ca.cert))
    with plain(lb.port) as sock:
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"


def test_one_that_is_added_speaks_tls_too(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    lb = balance(keep(Refuser()), app={"dynamic": True})
    with pytest.raises(ValueError, match="tls: CA"):
        lb.app.add_upstream(UpstreamServer("127.0.0.1:1", tls=UpstreamTLS(ca=BAD_PEM)))
    assert len(lb.app.upstreams) == 1
    lb.app.add_upstream(server(keep(tls_upstream(pki)), pki))
    with connect(pki, lb.port) as client:
        client.echo(b"x")


def test_one_that_is_added_takes_what_the_others_have_loaded(
    balance: MakeBalancer, keep: Keep, pki: Pki, tmp_path: Path
) -> None:
    """A name brings upstreams at any time: they need no file that may just then be replaced."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(Path(pki.ca.cert).read_bytes())
    lb = balance(UpstreamServer(keep(Refuser()).address, tls=UpstreamTLS(ca=ca)))
    ca.unlink()
    added = keep(tls_upstream(pki))
    lb.app.add_upstream(UpstreamServer(added.address, tls=UpstreamTLS(ca=ca)))
    with connect(pki, lb.port) as client:
        client.echo(b"x")


def test_nothing_is_left_of_many(balance: MakeBalancer, keep: Keep, pki: Pki) -> None:
    """Each way of ending, again and again, beside handshakes that fail; the kit looks at what is left."""
    wrong = server(keep(tls_upstream(pki)), pki, verify_name="other.example")
    lb = balance(server(keep(tls_upstream(pki)), pki), wrong, app={"passive_failures": 0})
    for number in range(60):
        with connect(pki, lb.port) as client:
            client.echo(b"x" * 1000)
            if number % 3 == 0:
                client.reset()
            elif number % 3 == 1:
                client.send_fin()
    assert wrong.errors > 20
    lb.wait_quiet()
