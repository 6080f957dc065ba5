"""Checks with TLS: whom they believe, what they show, and in which words. Real sockets, real TLS."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.health import SHORT, Checked, first_result, target
from kit.pki import SERVER, Identity, Pki
from kit.proxy_header import SIGNATURE, Header, read_header
from kit.sockets import End
from kit.tls_upstream import TlsSession, dumps_certificate, tls_echo, tls_upstream
from kit.upstreams import Session, Upstream, greeter, hold
from kit.waiting import wait_until

from lbctl.health import CheckTLS, Result, Target, encrypted
from lbctl.health.context import Contexts

Keep = Callable[[Any], Any]
LOCAL_HEADER = SIGNATURE + b"\x20\x00\x00\x00"


def tls_target(pki: Pki, address: str, shown: Identity | None = None, **settings: Any) -> Target:
    """Trusts the CA of the tests, and shows that certificate."""
    tls = CheckTLS(
        settings.pop("ca", pki.ca.cert),
        shown.cert if shown else None,
        shown.key if shown else None,
        settings.pop("verify_name", None),
    )
    return target(address, type="tls", tls=tls, **settings)


def outcome(result: Result) -> tuple[bool, str]:
    return result.passed, result.message


def answer(tls: TlsSession) -> None:
    """Echoes, but says something of its own first."""
    tls.send(b"220 ready\r\n")
    tls_echo(tls)


# ---- whom they believe ---------------------------------------------------------------------------


def test_the_certificate_is_for_the_address(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki))
    assert outcome(first_result(tls_target(pki, upstream.address))) == (True, "passed")


def test_the_certificate_is_for_the_name(pki: Pki, keep: Keep) -> None:
    identity = pki.ca.issue("named", usages=SERVER, addresses=("db.internal",))
    upstream = keep(tls_upstream(pki, identity=identity))
    assert first_result(tls_target(pki, upstream.address, verify_name="db.internal")).passed
    passed, message = outcome(first_result(tls_target(pki, upstream.address)))
    assert not passed
    assert message.startswith("certificate verify failed: ")
    assert "'127.0.0.1'" in message


def test_the_certificate_is_for_another_name(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki))
    passed, message = outcome(first_result(tls_target(pki, upstream.address, verify_name="db.internal")))
    assert not passed
    assert message.startswith("certificate verify failed: ")
    assert "'db.internal'" in message


def test_a_name_in_the_subject_alone_is_told_apart(pki: Pki, keep: Keep) -> None:
    """One that has other names does not get by with a common name."""
    identity = pki.ca.issue("db.internal", usages=SERVER, addresses=("other.internal",))
    upstream = keep(tls_upstream(pki, identity=identity))
    assert not first_result(tls_target(pki, upstream.address, verify_name="db.internal")).passed


def test_another_ca_of_the_same_name(pki: Pki, keep: Keep) -> None:
    identity = pki.rogue.issue("server", usages=SERVER, addresses=("127.0.0.1",))
    upstream = keep(tls_upstream(pki, identity=identity))
    passed, message = outcome(first_result(tls_target(pki, upstream.address)))
    assert not passed
    assert message.startswith("certificate verify failed: ")


def test_an_expired_certificate(pki: Pki, keep: Keep) -> None:
    identity = pki.ca.issue("old", usages=SERVER, addresses=("127.0.0.1",), ends=-dt.timedelta(hours=1))
    upstream = keep(tls_upstream(pki, identity=identity))
    expected = (False, "certificate verify failed: certificate has expired")
    assert outcome(first_result(tls_target(pki, upstream.address))) == expected


def test_a_ca_below_the_root_is_enough(pki: Pki, keep: Keep) -> None:
    identity = pki.sub_ca.issue("below", usages=SERVER, addresses=("127.0.0.1",))
    upstream = keep(tls_upstream(pki, identity=identity))
    assert first_result(tls_target(pki, upstream.address, ca=pki.sub_ca.cert)).passed


def test_ipv6(pki: Pki, keep: Keep) -> None:
    """The certificate of the tests is for ::1, which has more than one spelling."""

    def run(session: Session) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.server.cert, pki.server.key)
        tls = TlsSession(session, context)
        with contextlib.suppress(ssl.SSLError):
            tls.handshake()
            tls_echo(tls)

    upstream = keep(Upstream(run, host="::1"))
    assert first_result(tls_target(pki, upstream.address)).passed
    assert first_result(tls_target(pki, upstream.address, verify_name="0::0:1")).passed
    assert not first_result(tls_target(pki, upstream.address, verify_name="::2")).passed


# ---- what they show ------------------------------------------------------------------------------


def test_a_certificate_is_shown(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki, dumps_certificate, wants_certificate=True))
    one = tls_target(pki, upstream.address, pki.alice, expect=str(pki.alice.serial).encode())
    assert outcome(first_result(one)) == (True, "passed")


def test_a_certificate_that_is_wanted_and_accepted(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki, wants_certificate=True))
    assert outcome(first_result(tls_target(pki, upstream.address, pki.alice))) == (True, "passed")
    assert upstream.session().wait_end() is End.CLOSE_NOTIFY


def test_a_certificate_that_is_wanted_and_not_there(pki: Pki, keep: Keep) -> None:
    """With TLS 1.3 our handshake is over before the upstream says so."""
    upstream = keep(tls_upstream(pki, wants_certificate=True))
    expected = (False, "TLS alert: certificate required")
    assert outcome(first_result(tls_target(pki, upstream.address))) == expected


def test_a_certificate_that_is_wanted_from_another_ca(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki, wants_certificate=True))
    rogue = pki.rogue.issue("alice", serial=pki.alice.serial)
    passed, message = outcome(first_result(tls_target(pki, upstream.address, rogue)))
    assert not passed
    assert message in ("TLS alert: unknown ca", "TLS alert: decrypt error")  # it has our CA's name


def test_an_answer_is_not_waited_for_from_who_refuses(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki, wants_certificate=True))
    one = tls_target(pki, upstream.address, send=b"PING", expect=b"PONG")
    assert outcome(first_result(one)) == (False, "TLS alert: certificate required")


def test_a_balancer_behind_this_one_lets_the_check_in(pki: Pki, keep: Keep, balance: Any) -> None:
    """It issues no tickets: it keeps silent, and is believed."""
    lb = balance(keep(Upstream()))
    one = tls_target(pki, f"127.0.0.1:{lb.port}", pki.alice)
    with Checked(one) as checked:
        assert all(result.passed for result in checked.wait(one, 3))


def test_a_balancer_behind_this_one_does_not_know_the_check(pki: Pki, keep: Keep, balance: Any) -> None:
    lb = balance(keep(Upstream()))
    one = tls_target(pki, f"127.0.0.1:{lb.port}", pki.bob)
    with Checked(one) as checked:
        wait_until(lambda: [result for result in checked.of(one) if not result.passed])


# ---- what goes wrong -----------------------------------------------------------------------------


def test_a_server_without_tls(pki: Pki, keep: Keep) -> None:
    upstream = keep(Upstream(greeter(b"220 ready\r\n")))
    assert outcome(first_result(tls_target(pki, upstream.address))) == (False, "it does not speak TLS")


def test_a_server_of_before(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki, newest=ssl.TLSVersion.TLSv1_2))
    assert outcome(first_result(tls_target(pki, upstream.address))) == (False, "it does not speak TLS 1.3")


def test_a_server_that_hangs_in_the_handshake(pki: Pki, keep: Keep) -> None:
    upstream = keep(Upstream(hold))
    expected = (False, f"no answer within {SHORT:g}s")
    assert outcome(first_result(tls_target(pki, upstream.address, timeout=SHORT))) == expected


def test_a_server_that_ends_in_the_handshake(pki: Pki, keep: Keep) -> None:
    def run(session: Session) -> None:
        session.sock.recv(1 << 16)

    upstream = keep(Upstream(run))
    expected = (False, "it closed the connection during the handshake")
    assert outcome(first_result(tls_target(pki, upstream.address))) == expected


def test_a_server_that_hangs_after_the_handshake(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki))  # an echo, and nothing to send back
    expected = (False, f"no answer within {SHORT:g}s")
    assert (
        outcome(first_result(tls_target(pki, upstream.address, expect=b"hello", timeout=SHORT))) == expected
    )


def test_a_server_that_sends_too_much(pki: Pki, keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encrypted, "_OVERHEAD_MAX", 500)  # its certificate alone has more
    upstream = keep(tls_upstream(pki))
    assert outcome(first_result(tls_target(pki, upstream.address))) == (False, "it sends too much")


# ---- what is said --------------------------------------------------------------------------------


def test_the_answer_is_right(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki))
    assert first_result(tls_target(pki, upstream.address, send=b"PING", expect=b"PING")).passed
    assert upstream.session().wait_end() is End.CLOSE_NOTIFY


def test_the_answer_is_wrong(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki))
    result = first_result(tls_target(pki, upstream.address, send=b"PING", expect=b"PONG"))
    assert outcome(result) == (False, "the answer begins with b'PING', not with b'PONG'")


def test_a_server_that_speaks_first(pki: Pki, keep: Keep) -> None:
    upstream = keep(tls_upstream(pki, answer))
    assert first_result(tls_target(pki, upstream.address, expect=b"220 ")).passed


def test_it_ends_without_an_answer(pki: Pki, keep: Keep) -> None:
    def run(tls: TlsSession) -> None:
        tls.send_close_notify()
        tls.collect()

    upstream = keep(tls_upstream(pki, run))
    result = first_result(tls_target(pki, upstream.address, expect=b"220 "))
    assert outcome(result) == (False, "it closed the connection without an answer")


def test_the_proxy_header_comes_before_tls(pki: Pki, keep: Keep) -> None:
    headers: list[Header] = []
    upstream = keep(tls_upstream(pki, before=lambda session: headers.append(read_header(session.sock))))
    result = first_result(tls_target(pki, upstream.address, proxy=LOCAL_HEADER, send=b"PING", expect=b"PING"))
    assert outcome(result) == (True, "passed")
    assert headers[0] == Header(2, None, None)


# ---- files ---------------------------------------------------------------------------------------


def add(one: Target) -> None:
    with Checked() as checked:
        checked.checker.add(one)


def test_a_ca_that_cannot_be_read(pki: Pki, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        add(target("127.0.0.1:1", type="tls", tls=CheckTLS(tmp_path / "none.pem")))
    assert Path(str(caught.value.filename)) == tmp_path / "none.pem"


def test_a_key_that_cannot_be_read(pki: Pki, tmp_path: Path) -> None:
    tls = CheckTLS(pki.ca.cert, pki.alice.cert, tmp_path / "none.key")
    with pytest.raises(FileNotFoundError) as caught:
        add(target("127.0.0.1:1", type="tls", tls=tls))
    assert Path(str(caught.value.filename)) == tmp_path / "none.key"


def test_files_that_are_something_else(pki: Pki, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text("something else\n")
    for tls in (
        CheckTLS(other),
        CheckTLS(pki.alice.key),
        CheckTLS(pki.ca.cert, other, pki.alice.key),
        CheckTLS(pki.ca.cert, pki.alice.cert, other),
        CheckTLS(pki.ca.cert, pki.alice.cert, pki.bob.key),
    ):
        with pytest.raises(ValueError, match=r"\.pem|\.key"):
            add(target("127.0.0.1:1", type="tls", tls=tls))


def test_an_encrypted_key_is_refused_and_nobody_is_asked(pki: Pki, tmp_path: Path) -> None:
    key = tmp_path / "encrypted.key"
    command = [
        "openssl",
        "pkey",
        "-in",
        str(pki.alice.key),
        "-aes128",
        "-passout",
        "pass:x",
        "-out",
        str(key),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    with pytest.raises(ValueError, match=r"encrypted\.key"):
        add(target("127.0.0.1:1", type="tls", tls=CheckTLS(pki.ca.cert, pki.alice.cert, key)))


def test_a_unix_socket_needs_a_name(pki: Pki, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^tls: a unix socket has no name"):
        add(target(f"unix:{tmp_path}/up.sock", type="tls", tls=CheckTLS(pki.ca.cert)))


def test_a_context_is_made_once_and_not_kept_for_nobody(pki: Pki, tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_bytes(pki.ca.cert.read_bytes())
    contexts = Contexts()
    first = contexts.get(CheckTLS(ca))
    assert contexts.get(CheckTLS(ca)) is first
    assert contexts.get(CheckTLS(ca, verify_name="db.internal")) is not first
    ca.unlink()
    assert contexts.get(CheckTLS(ca)) is first
    del first
    gc.collect()
    with pytest.raises(FileNotFoundError):
        contexts.get(CheckTLS(ca))
