"""A whole balancer: mutual TLS, one application, its upstreams; a line for each connection.

    python docs/examples/embedded_balancer.py certs 0.0.0.0:7306 4F3A910C 10.0.1.11:5432 10.0.1.12:5432
"""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import lbcore

certs, address, serial, *upstreams = sys.argv[1:]


def decide(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
    if peer.serial == int(serial, 16):
        return lbcore.Verdict(allow=True, client="the only one")
    return lbcore.Verdict(allow=False, reason="unknown_serial")


def show(records: Sequence[lbcore.Record]) -> None:
    for record in records:
        print(record.id, record.source, record.stage, record.reason, record.bytes_out, flush=True)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # the workers inherit it
engine = lbcore.Engine(on_records=show)
engine.start()
app = lbcore.Application("orders", [lbcore.UpstreamServer(upstream) for upstream in upstreams])
pem = Path(certs)
tls = lbcore.ServerTLS(cert=pem / "server.pem", key=pem / "server.key", client_ca=pem / "ca.pem")
print("listening on", engine.listen(app, address, tls=tls, authorize=decide).address, flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
engine.stop(drain=10)
