"""Stage 1, accept."""

from __future__ import annotations

from kit.clients import connect
from kit.upstreams import Upstream


def test_bytes_get_through(pki, balance, keep):
    upstream = keep(Upstream())
    lb = balance(upstream)
    with connect(pki, lb.port) as client:
        client.echo(b"hello")
    record = lb.record(event="conn.close")
    assert record.reason == "client_closed"
