"""`lbctl probe`: what a client sees, in words, against the balancer and against other servers."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from kit.commands import lbctl_inside, openssl
from kit.pki import Authority
from kit.servers import free_port, require_server
from kit.sockets import reset
from kit.upstreams import Blackhole, Refuser, Script, Session, Upstream, echo, greeter, hold
from kit.waiting import PATIENCE, wait_until

import lbcore
from lbctl.cli.commands import lbctl

if TYPE_CHECKING:
    from kit.pki import Identity, Pki

Keep = Callable[[Any], Any]
NOT_NOW = (
    "refused by the server after the handshake: "
    "this certificate may not use this app now (ask the operator for the log line)"
)


@dataclass(frozen=True)
class Said:
    """What a probe printed, and its exit code."""

    code: int
    text: str


@pytest.fixture
def probe(pki: Pki) -> Callable[..., Said]:
    """Probes a port on localhost; a refusal may take long, so only tests of admission wait briefly."""

    def run(port: int, identity: Identity | None = None, *options: str, wait: float = 10.0) -> Said:
        arguments = ["probe", f"localhost:{port}", "--wait", str(wait), "--timeout", "10"]
        if identity is not None:
            arguments += ["--cert", str(identity.cert), "--key", str(identity.key)]
        if "--ca" not in options:
            arguments += ["--ca", str(pki.ca.cert)]
        done = CliRunner().invoke(lbctl, [*arguments, *options], prog_name="lbctl")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Said(done.exit_code, done.output.strip())

    return run


def server_context(pki: Pki, *, ask: bool = True, ca: Path | None = None) -> ssl.SSLContext:
    """OpenSSL's server side: it sends exact alerts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    if ask:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca or pki.ca.cert)
    return context


def tls(context: ssl.SSLContext, then: Callable[[ssl.SSLSocket], None]) -> Script:
    """A server that shakes hands and does one thing more."""

    def run(session: Session) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(session.sock, server_side=True) as sock:
            then(sock)

    return run


def read_on(sock: ssl.SSLSocket) -> None:
    """Keeps the connection until the client ends it."""
    while sock.recv(4096):
        pass


# ---- the balancer --------------------------------------------------------------------------------


def test_admitted(pki: Pki, keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said]) -> None:
    balancer = balance(keep(Upstream(echo)))
    said = probe(balancer.port, pki.alice, wait=0.3)
    assert said.code == 0
    assert said.text.startswith("admitted: TLSv1.3, TLS_AES_")
    assert said.text.endswith("; the server kept the connection for 0.3 s")
    assert balancer.record().reason == "client_closed"


def test_admitted_by_a_server_that_speaks_first(
    pki: Pki, keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said]
) -> None:
    balancer = balance(keep(Upstream(greeter(b"220 ready\r\n"))))
    started = time.monotonic()
    said = probe(balancer.port, pki.alice, wait=60.0)
    assert said.code == 0
    assert said.text.endswith("; the server spoke first (11 bytes)")
    assert time.monotonic() - started < 30  # it did not wait to the end


@pytest.mark.parametrize("who", ["not allowed", "unknown", "rogue"])
def test_refused(
    pki: Pki, keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said], who: str
) -> None:
    upstream = keep(Upstream(hold))
    balancer = balance(upstream)
    balancer.policy.allow(pki.bob, "another")
    identity = {
        "not allowed": lambda: pki.bob,
        "unknown": pki.client,
        "rogue": lambda: pki.rogue.issue("rogue-for-probe"),
    }[who]()
    assert probe(balancer.port, identity) == Said(75, NOT_NOW)
    assert upstream.accepted == 0


def test_refused_without_a_certificate(
    keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said]
) -> None:
    balancer = balance(keep(Upstream(hold)))
    assert probe(balancer.port) == Said(
        75,
        "refused by the server after the handshake: it wants a client certificate; give --cert and --key",
    )


@pytest.mark.parametrize("how", ["expired", "for servers"])
def test_a_refusal_names_what_is_wrong_with_ones_own_certificate(
    pki: Pki, keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said], how: str
) -> None:
    balancer = balance(keep(Upstream(hold)))
    if how == "expired":
        identity = pki.ca.issue("probe-expired", starts=timedelta(days=-3), ends=timedelta(days=-2))
    else:
        identity = pki.server
    said = probe(balancer.port, identity)
    assert said.code == 75
    refusal, note = said.text.splitlines()
    assert refusal == NOT_NOW
    assert note.startswith(f"note: {str(identity.cert)[:50]}")
    assert ("is expired (ends " if how == "expired" else "is not for clients (it is for: server)") in note


def test_turned_away_when_no_upstream_is_up(
    pki: Pki, keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said]
) -> None:
    said = probe(balance(keep(Refuser())).port, pki.alice)
    assert said.code == 75
    assert said.text.startswith("turned away for now: the server ended the connection cleanly")


def test_turned_away_by_a_limit(
    pki: Pki, keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said]
) -> None:
    balancer = balance(keep(Upstream(echo)))
    one = lbcore.RateLimitManager("bob", rate=0.001, burst=1)
    balancer.policy.clients[pki.bob.serial] = ("bob", ("web",), one)
    assert probe(balancer.port, pki.bob, wait=0.3).code == 0
    said = probe(balancer.port, pki.bob)
    assert said.code == 75
    assert "a limit is reached" in said.text


def test_the_server_is_judged_too(
    pki: Pki, keep: Keep, balance: Callable[..., Any], probe: Callable[..., Said]
) -> None:
    balancer = balance(keep(Upstream(hold)))
    said = probe(balancer.port, pki.alice, "--ca", str(pki.rogue.cert))
    assert said.code == 1
    assert said.text.startswith("the server is not to be trusted, by ")
    said = probe(balancer.port, pki.alice, "--server-name", "db.lan")
    assert said.code == 1
    assert "db.lan" in said.text.partition("not to be trusted, ")[2]


def test_json_says_the_same(pki: Pki, keep: Keep, balance: Callable[..., Any]) -> None:
    balancer = balance(keep(Upstream(echo)))
    alice = ("--cert", pki.alice.cert, "--key", pki.alice.key, "--ca", pki.ca.cert, "--json")
    ran = lbctl_inside("probe", f"127.0.0.1:{balancer.port}", *alice, "--wait", "0.3")
    assert ran.code == 0
    said = ran.json()
    assert said["outcome"] == "admitted"
    assert said["peer"] == f"127.0.0.1:{balancer.port}"
    assert said["tls"] == "TLSv1.3"
    assert said["certificate_asked"] is True
    balancer.policy.clients.clear()
    balancer.engine.set_policy([])
    ran = lbctl_inside("probe", f"127.0.0.1:{balancer.port}", *alice, "--wait", "10")
    assert ran.code == 75
    assert ran.json()["outcome"] == "refused"
    assert ran.json()["exit_code"] == 75
    assert ran.json()["text"] == NOT_NOW


# ---- other servers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "why"),
    [
        ("nobody", "it wants a client certificate; give --cert and --key"),
        ("another CA", "it does not trust the CA that issued this certificate (alert: unknown ca)"),
        (
            "rogue",
            "a signature is wrong: this certificate is of another CA of that name (alert: decrypt error)",
        ),
        ("server", "this certificate is not meant for clients (alert: unsupported certificate)"),
        ("expired", "this certificate has expired, or is not valid yet (alert: certificate expired)"),
    ],
)
def test_alerts_in_words(
    pki: Pki, keep: Keep, probe: Callable[..., Said], tmp_path: Path, who: str, why: str
) -> None:
    server = keep(Upstream(tls(server_context(pki), read_on)))
    identity = {
        "nobody": lambda: None,
        "another CA": lambda: Authority(tmp_path, "another").issue("eve"),
        "rogue": lambda: pki.rogue.issue("rogue-for-alert", names_issuer_key=False),
        "server": lambda: pki.server,
        "expired": lambda: pki.ca.issue("old", starts=timedelta(days=-3), ends=timedelta(days=-2)),
    }[who]()
    said = probe(server.port, identity)
    assert said.code == 75
    assert said.text.splitlines()[0] == f"refused by the server after the handshake: {why}"


@pytest.mark.parametrize("with_certificate", [True, False])
@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"])
def test_a_server_that_asks_for_no_certificate(
    pki: Pki, keep: Keep, with_certificate: bool, suite: str
) -> None:
    """By the size of the client's last flight, which differs by suite; counter-proof: one that asks."""
    for ask, outcome in (("-verify_quiet", "certificate_not_asked"), ("-verify", "admitted")):
        with openssl_server(pki, suite, asks=ask == "-verify") as port:
            who = ("--cert", pki.alice.cert, "--key", pki.alice.key) if with_certificate else ()
            ran = lbctl_inside(
                "probe", f"localhost:{port}", "--ca", pki.ca.cert, *who, "--json", "--wait", "0.3"
            )
            assert ran.json()["outcome"] == outcome
            assert ran.json()["cipher"] == suite
            assert ran.json()["certificate_asked"] is (outcome == "admitted")
            assert ran.code == (0 if outcome == "admitted" else 1)


@contextlib.contextmanager
def openssl_server(pki: Pki, suite: str, *, asks: bool) -> Iterator[int]:
    """`openssl s_server`, with a choice of cipher suite that Python's ssl does not give."""
    port = free_port()
    command = [require_server("openssl"), "s_server", "-accept", str(port), "-quiet", "-naccept", "2",
               "-cert", str(pki.server.cert), "-key", str(pki.server.key),
               "-ciphersuites", suite]  # fmt: skip
    if asks:
        command += ["-verify", "1", "-CAfile", str(pki.ca.cert)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )

    def listening() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port), 1):
            return True
        return False

    try:
        wait_until(listening, "openssl s_server listens")
        yield port
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def test_a_server_without_tls_1_3(pki: Pki, keep: Keep, probe: Callable[..., Said]) -> None:
    context = server_context(pki)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    said = probe(keep(Upstream(tls(context, read_on))).port, pki.alice)
    assert said.code == 1
    assert said.text.endswith(" does not speak TLS 1.3")


def test_a_server_without_tls(keep: Keep, probe: Callable[..., Said]) -> None:
    port = keep(Upstream(greeter(b"220 mail.lan ESMTP\r\n"))).port
    assert probe(port) == Said(1, f"localhost:{port} answers, but not with TLS")


def test_a_server_that_hangs_up_at_once(keep: Keep, probe: Callable[..., Said]) -> None:
    for script in (lambda session: None, lambda session: reset(session.sock)):
        port = keep(Upstream(script)).port
        for _ in range(20):  # it hangs up sooner or later: during connect, before or after our first bytes
            said = probe(port)
            assert said.code == 75
            assert said.text.startswith(f"localhost:{port} closed the connection before the handshake")


def test_nothing_stays_behind_when_the_server_does_not_end_its_side(
    pki: Pki, keep: Keep, probe: Callable[..., Said]
) -> None:
    resets: list[bool] = []

    def half_open(sock: ssl.SSLSocket) -> None:
        read_on(sock)
        poller = select.poll()
        poller.register(sock, 0)  # errors only
        resets.append(bool(poller.poll(PATIENCE * 1000)))

    assert probe(keep(Upstream(tls(server_context(pki), half_open))).port, pki.alice, wait=0.1).code == 0
    wait_until(lambda: resets, "the server sees the end")
    assert resets == [True]


def test_an_end_without_a_tls_end(pki: Pki, keep: Keep, probe: Callable[..., Said]) -> None:
    def cut(sock: ssl.SSLSocket) -> None:
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            sock.recv(1)

    said = probe(keep(Upstream(tls(server_context(pki), cut))).port, pki.alice)
    assert said.code == 75
    assert said.text.startswith("cut off after the handshake")


def test_nothing_listens(keep: Keep, probe: Callable[..., Said]) -> None:
    port = keep(Refuser()).port
    assert probe(port) == Said(1, f"cannot reach localhost:{port}: connection refused; nothing listens there")


def test_nobody_answers(keep: Keep, probe: Callable[..., Said]) -> None:
    port = keep(Blackhole()).port
    ran = lbctl_inside("probe", f"127.0.0.1:{port}", "--timeout", "0.3")
    assert ran.code == 1
    assert ran.out == f"cannot reach 127.0.0.1:{port}: no answer within 0.3 s\n"


def test_a_silent_server(keep: Keep, probe: Callable[..., Said]) -> None:
    silent = keep(socket.create_server(("127.0.0.1", 0)))
    port = silent.getsockname()[1]
    said = probe(port, None, "--timeout", "0.3")
    assert said.code == 1
    assert said.text == f"localhost:{port} accepted, but the handshake was not over within 0.3 s"


def test_dripping_does_not_stretch_the_deadline(keep: Keep, probe: Callable[..., Said]) -> None:
    """The head of a record of 16 KiB, and then a byte now and then."""

    def drip(session: Session) -> None:
        session.sock.sendall(b"\x16\x03\x03\x40\x00")
        while True:
            session.sock.sendall(b"\x02")
            session.sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                if not session.sock.recv(4096):
                    return

    started = time.monotonic()
    said = probe(keep(Upstream(drip)).port, None, "--timeout", "0.5")
    assert "not over within 0.5 s" in said.text
    assert 0.4 < time.monotonic() - started < 10


def test_ipv6(pki: Pki, keep: Keep) -> None:
    server = keep(Upstream(tls(server_context(pki), read_on), host="::1"))
    ran = lbctl_inside(
        "probe", server.address, "--ca", pki.ca.cert, "--cert", pki.alice.cert, "--key", pki.alice.key,
        "--wait", "0.3", "--json",
    )  # fmt: skip
    assert ran.json()["outcome"] == "admitted"
    assert ran.json()["peer"] == server.address


def test_a_host_that_does_not_exist() -> None:
    ran = lbctl_inside("probe", "no-such-host.invalid:443")
    assert ran.code == 1
    assert ran.out.startswith("cannot reach no-such-host.invalid:443: ")


# ---- the command line ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["localhost", "localhost:", ":443", "localhost:0", "localhost:65536", "::1:443", "h:4x", "h:٣", "[]:1"],
)
def test_addresses_that_are_none(address: str) -> None:
    ran = lbctl_inside("probe", address)
    assert ran.code == 64
    assert "expected HOST:PORT such as localhost:8443 or [::1]:8443" in ran.err


def test_a_key_without_a_certificate() -> None:
    ran = lbctl_inside("probe", "localhost:1", "--key", "x.key")
    assert ran.code == 64
    assert "add --cert" in ran.err


def test_files_that_cannot_be_used(pki: Pki, tmp_path: Path) -> None:
    def fails(*options: str | Path) -> str:
        ran = lbctl_inside("probe", "localhost:1", *options, cwd=tmp_path)
        assert ran.code == 1
        return ran.err.removeprefix("lbctl: error: ").strip()

    (tmp_path / "notes").write_text("hello")
    assert fails("--ca", "absent") == "cannot use the CA absent: No such file or directory"
    assert fails("--ca", "notes") == "cannot use the CA notes: no certificate in PEM"
    assert fails("--cert", "absent") == "cannot use absent: No such file or directory"
    assert fails("--cert", "notes") == "cannot use notes: not a certificate and its key in PEM"
    mismatch = fails("--cert", pki.alice.cert, "--key", pki.bob.key)
    assert mismatch.endswith(": the key is not that of the certificate")


def test_nobody_is_asked_for_a_password(pki: Pki, tmp_path: Path) -> None:
    openssl("ec", "-in", pki.alice.key, "-aes256", "-passout", "pass:secret", "-out", tmp_path / "locked.key")
    ran = lbctl_inside("probe", "localhost:1", "--cert", pki.alice.cert, "--key", tmp_path / "locked.key")
    assert ran.code == 1
    assert "the private key is encrypted, and nothing here asks for passwords" in ran.err
