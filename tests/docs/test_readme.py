"""The Python of the README does what it shows."""

from __future__ import annotations

import asyncio
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from kit.clients import connect
from kit.pki import Pki
from kit.upstreams import Upstream
from kit.waiting import wait_until

import lbcore

#: Names that are kept for what is not built yet: nothing says them.
NOT_YET = {"kicked"}

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


def pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a TCP connection: the client's and the accepted one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return client, server.accept()[0]


def test_embedding_as_the_readme_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, certs: Path, pki: Pki, upstream: Upstream
) -> None:
    balancer, submitting = blocks()
    assert certs.parent == tmp_path
    monkeypatch.chdir(tmp_path)
    printed: list[Any] = []
    names: dict[str, Any] = {"print": printed.append}
    for shown, used in (
        ("10.0.1.11:5432", upstream.address),
        ("10.0.1.12:5432", "127.0.0.1:1"),
        ("127.0.0.1:8443", "127.0.0.1:0"),
        ("4F3A910C7712A05E", f"{pki.alice.serial:X}"),
    ):
        assert shown in balancer
        balancer = balancer.replace(shown, used)
    listener = "listener = engine.listen("
    exec(balancer.replace("\nengine.listen(", f"\n{listener}"), names)
    engine = names["engine"]
    try:
        with connect(pki, names["listener"].port, pki.alice) as client:
            client.echo(b"hello")
        with connect(pki, names["listener"].port, pki.bob) as client:
            assert client.receive_to_end()[0] == b""
        wait_until(lambda: sum(map(len, printed)) == 2, "both records")
        assert {(r.client, r.reason) for records in printed for r in records} == {
            ("billing-api", "client_closed"),
            (None, "unknown_serial"),
        }, "of two workers: in either order"
        printed.clear()
        client_end, names["sock"] = pair()
        with client_end:
            exec(submitting, names)
            client_end.sendall(b"x")
            assert client_end.recv(1) == b"x"
            assert (names["tenant"].open, names["everybody"].open) == (1, 1)
        wait_until(lambda: len(printed) == 2, "its record: to on_done, and to on_records")
        assert names["tenant"].open == 0

        async def serve() -> Any:
            asynchronous = re.search(r"await app\.serve_connection\(sock, tenant\)", submitting)
            assert asynchronous
            ours, theirs = pair()
            ours.close()
            return await names["app"].serve_connection(theirs, names["tenant"])

        assert asyncio.run(serve()).reason in ("client_closed", "client_reset")
    finally:
        engine.stop()


def test_every_reason_is_explained() -> None:
    """Where it is decided, in the order of the stages; then how connections end that were forwarded."""
    section = README.read_text().partition("### Why a connection was refused")[2].partition("\n#")[0]
    words = set(re.findall(r"`([a-z_]+)`", section)) - {"waited_ms", "would_deny"}
    assert words == set(lbcore.REASONS[1:]) - NOT_YET
    for stage, reasons in re.findall(r"^\| ([a-z, ]+) \| (`.*?) \|", section, re.MULTILINE):
        assert set(stage.split(", ")) <= set(lbcore.STAGES), stage
        order = [lbcore.REASONS.index(reason) for reason in re.findall(r"`(\w+)`", reasons)]
        assert order == sorted(order), reasons
