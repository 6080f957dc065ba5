"""A program that embeds lbcore, using every public name, as a type checker sees it. It is never run."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Literal, assert_type

import lbcore
from lbcore.codes import AUTHORIZE_REASONS
from lbcore.stats import ApplicationStats, EngineStats, OpenConnection, State, UpstreamState

assert_type(lbcore.STAGES, tuple[str, ...])
assert_type(lbcore.REASONS, tuple[str, ...])
assert_type(AUTHORIZE_REASONS, frozenset[str])
assert_type(lbcore.tls_engines(), dict[str, str])

clock = lbcore.ManualClock(5)
clock.advance(0.5)
assert_type(clock.now, float)

simulation = lbcore.Simulation(
    lbcore.Application("twin", [lbcore.UpstreamServer("10.0.1.12:5432")]), clock=clock, seed=7
)
simulated = simulation.open(client="alice")
assert_type(simulated, lbcore.SimulatedConnection)
assert_type(simulated.reason, str | None)
assert_type(simulated.record, lbcore.Record | None)
simulation.advance(1)
simulated.close()

limit_class = lbcore.LimitClass(
    max_open=100,
    rate=50.0,
    burst=100,
    window=(20, 10),
    bandwidth_in=1e6,
    bandwidth_out=1e6,
    max_lifetime=3600,
    on_exceed="delay",
    max_wait=2,
    replace_oldest=True,
)
assert_type(limit_class.max_open, int | None)
assert_type(limit_class.rate, float | None)
assert_type(limit_class.burst, int | None)
assert_type(limit_class.window, tuple[int, float] | None)
everybody = limit_class.manager("everybody", scope="global")
assert_type(everybody, lbcore.RateLimitManager)

tenant = lbcore.RateLimitManager("tenant-a", max_open=100, rate=50, burst=100, parent=everybody)
assert_type(tenant.name, str)
assert_type(tenant.limits, lbcore.LimitClass)
assert_type(tenant.parent, lbcore.RateLimitManager | None)
assert_type(tenant.open, int)
assert_type(tenant.admitted, int)
assert_type(tenant.refused, int)
assert_type(tenant.would_refuse, int)
assert_type(tenant.waiting, int)
assert_type(tenant.bytes_in, int)
assert_type(tenant.bytes_out, int)
admission = tenant.connection_opened()
assert_type(admission, lbcore.Admission)
assert_type(admission.allowed, bool)
assert_type(admission.wait, float)
assert_type(admission.delay, bool)
if admission:
    assert_type(tenant.data_transferred(bytes_in=1, bytes_out=2), lbcore.Admission)
    tenant.connection_closed()
tenant.restore(everybody.snapshot())

server = lbcore.UpstreamServer("10.0.1.11:5432", 2, max_connections=400)
assert_type(server.address, str)
assert_type(server.weight, int)
assert_type(server.max_connections, int | None)
assert_type(server.id, int)
assert_type(server.in_flight, int)
assert_type(server.picked, int)
assert_type(server.errors, int)
assert_type(server.ejected, bool)
assert_type(server.state, UpstreamState)
assert_type(server.quarantines, int)
server.weight = 3
server.drain(end_after=30)
server.resume()
server.mark_down()
server.mark_up()

upstream_tls = lbcore.UpstreamTLS(ca=Path("ca.pem"), cert="lb.pem", key="lb.key", verify_name="metrics")
named = lbcore.UpstreamServer("unix:/run/metrics.sock", tls=upstream_tls)
assert_type(named.tls, lbcore.UpstreamTLS | None)
changing = lbcore.Application(
    "metrics", dynamic=True, slow_start=30, affinity="client", proxy_protocol="v2+tls"
)
assert_type(changing.health_turns, int)
changing.add_upstream(named)
changing.remove_upstream(named, end_after=0)

app = lbcore.Application(
    "orders",
    (lbcore.UpstreamServer(address) for address in ("10.0.1.12:5432", "[2001:db8::1]:5432")),
    max_connections=1000,
    limits=everybody,
    connect_timeout=1,
    connect_attempts=3,
    idle_timeout=1800.0,
    half_close_timeout=60.0,
    tcp_keepalive=60.0,
    on_truncated="eof",
    passive_failures=5,
    passive_eject=10.0,
    max_ejected=0.5,
)
assert_type(app.name, str)
assert_type(app.id, int)
assert_type(app.upstreams, tuple[lbcore.UpstreamServer, ...])
assert_type(app.max_connections, int | None)
assert_type(app.open_connections, int)
assert_type(app.limits, lbcore.RateLimitManager | None)
assert_type(app.stats(), ApplicationStats)
assert_type(app.stats()["ended"]["rate"], int)


def decide(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
    """A sync authorizer."""
    assert_type(peer.der, bytes)
    assert_type(peer.serial, int)
    assert_type(peer.serial_hex, str)
    assert_type(peer.fingerprint, str)
    assert_type(peer.source, str)
    assert_type(peer.subject, str)
    assert_type(peer.issuer, str)
    assert_type(peer.common_name, str | None)
    assert_type(peer.alternative_names, tuple[tuple[str, str], ...])
    assert_type(peer.not_after.year, int)
    if peer.serial == 0x4F3A and application == "orders":
        return lbcore.Verdict(allow=True, client="alice", limits=tenant, ttl=60.0)
    if application == "closed":
        raise lbcore.Undecided("nobody to ask")
    return lbcore.Verdict(allow=False, reason="unknown_serial")


async def decide_elsewhere(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
    """An async one."""
    return decide(peer, application)


class Policy:
    """A callable object is one as well."""

    def __call__(self, peer: lbcore.PeerCertificate, application: str) -> Awaitable[lbcore.Verdict]:
        return decide_elsewhere(peer, application)


def write_down(records: Sequence[lbcore.Record]) -> None:
    for record in records:
        assert_type(record, lbcore.Record)
        assert_type(record.client, str | None)
        assert_type(record.serial, int | None)
        assert_type(record.certificate, bytes | None)
        assert_type(record.duration_ms, float)
        assert_type(record.connect_ms, float | None)


def add_up(sums: Sequence[lbcore.RefusalSum]) -> None:
    for found in sums:
        assert_type(found.client, str | None)
        assert_type(found.count, int)


def show(record: lbcore.Record) -> str:
    return record.id


lbcore.Engine(record_lines=lbcore.RecordLines(sys.stdout.buffer.write, "lb-1", show))
engine = lbcore.Engine(
    workers=2,
    max_connections=10_000,
    max_unauthenticated=4096,
    handshake_timeout=5,
    authorize_timeout=2.0,
    authorize_threads=4,
    tls_engine="s2n",
    on_records=write_down,
    record_selection=lbcore.RecordSelection(0.5, 50, add_up),
)
assert_type(engine.workers, int)
assert_type(engine.max_connections, int)
assert_type(engine.tls_engine, str)
assert_type(engine.state, State)
assert_type(engine.state, Literal["new", "running", "stopping", "stopped", "forked"])
assert_type(engine.running, bool)
engine.start()

tls = lbcore.ServerTLS(cert=Path("server.pem"), key="server.key", client_ca=b"-----BEGIN ...", alpn=("h2",))
listener = engine.listen(app, "127.0.0.1:8443", tls=tls, authorize=decide)
assert_type(listener, lbcore.Listener)
assert_type(listener.application, lbcore.Application)
assert_type(listener.address, str)
assert_type(listener.port, int)
engine.listen(app, "[::]:8444", tls=tls, authorize=decide_elsewhere)
engine.listen(app, "[::]:8445", tls=tls, authorize=Policy())
engine.listen(app, "127.0.0.1:8080", plaintext=True, source_limits=limit_class)
engine.listen(app, "[::]:8446", plaintext=True, proxy_protocol_from=["10.0.0.0/8", "2001:db8::1"])

clients = [lbcore.PolicyClient("alice", serials=[0x4F3A], apps={"orders"}, disabled=False)]
assert_type(engine.set_policy(clients), int)
engine.set_policy(None)

assert_type(engine.stats(), EngineStats)
assert_type(engine.stats()["applications"]["orders"]["upstreams"][0]["ejected"], bool)
for connection in engine.connections():
    assert_type(connection, OpenConnection)
    assert_type(connection["client"], str | None)

listener.close()
engine.abort_drain()
assert_type(engine.stop(drain=30), bool)

# Mistakes that a type checker must see: each of these lines is an error, or mypy says that it is not.
engine.listen(app, 8443, plaintext=True)  # type: ignore[arg-type]
engine.listen(app, "127.0.0.1:1", tls=tls, authorize=lambda peer: None)  # type: ignore[misc, arg-type]
lbcore.Application("orders", [], on_truncated="close")  # type: ignore[arg-type]
lbcore.Application("orders", ["10.0.1.11:5432"])  # type: ignore[list-item]
lbcore.RateLimitManager("tenant", 100)  # type: ignore[call-arg]
lbcore.Verdict(True, 7)  # type: ignore[arg-type]
server.weight = "3"  # type: ignore[assignment]
server.address = "10.0.1.11:5432"  # type: ignore[misc]
