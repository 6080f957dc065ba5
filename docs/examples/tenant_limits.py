"""A server that accepts for itself, knows its tenants by the address they come from, and hands each
connection over within that tenant's limits. `accept` is all that Python does for a connection.

    python docs/examples/tenant_limits.py 0.0.0.0:7306 10.0.1.11:5432
"""

import socket
import sys

import lbcore

address, upstream = sys.argv[1:]
host, _, port = address.rpartition(":")

everybody = lbcore.RateLimitManager("everybody", max_open=1000, scope="global")
small = lbcore.LimitClass(max_open=2, bandwidth_out=1e6)
large = lbcore.LimitClass(max_open=200, window=(100, 10.0), on_exceed="delay", max_wait=5.0)
tenants = {
    "127.0.0.1": small.manager("acme", parent=everybody),
    "127.0.0.2": large.manager("globex", parent=everybody),
}


def ended(record: lbcore.Record) -> None:
    print(record.client, record.stage, record.reason, record.bytes_in, record.bytes_out, flush=True)


engine = lbcore.Engine()
engine.start()
app = lbcore.Application("orders", [lbcore.UpstreamServer(upstream)])
with socket.create_server((host, int(port))) as server:
    print(f"listening on {host}:{server.getsockname()[1]}", flush=True)
    while True:
        connection, (source, _) = server.accept()
        limits = tenants.get(source)
        if limits is None:  # nobody we know
            connection.close()
        else:
            app.submit_connection(connection, limits, client=limits.name, on_done=ended)
