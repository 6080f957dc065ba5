"""Clients that a directory on the network knows: an authorizer that asks it with asyncio.

It answers a line of JSON for a serial: {"name": "billing", "apps": ["orders"]}, or null. While the question
is under way no connection of anybody else waits for it; an answer that does not come, or makes no sense, is a
refusal; a good one is not asked for again for a minute.

    python docs/examples/async_authorizer.py certs 0.0.0.0:7306 10.0.1.11:5432 10.0.0.5:7000
"""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lbcore

certs, address, upstream, directory = sys.argv[1:]


async def ask(serial: str) -> Any:
    host, _, port = directory.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(serial.encode() + b"\n")
        return json.loads(await reader.readline())
    finally:
        writer.close()


async def decide(peer: lbcore.PeerCertificate, application: str) -> lbcore.Verdict:
    try:
        client = await asyncio.wait_for(ask(peer.serial_hex), 1.0)
    except (OSError, TimeoutError) as error:
        print("the directory does not answer:", error, file=sys.stderr, flush=True)
        raise lbcore.Undecided from None  # refused with authz_error; the next connection asks again
    if client is None:
        return lbcore.Verdict(allow=False, reason="unknown_serial", ttl=5.0)
    if application not in client["apps"]:
        return lbcore.Verdict(allow=False, reason="app_not_allowed", client=client["name"], ttl=5.0)
    return lbcore.Verdict(allow=True, client=client["name"], ttl=60.0)


def show(records: Sequence[lbcore.Record]) -> None:
    for record in records:
        print(record.client, record.stage, record.reason, flush=True)


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # the workers inherit it
engine = lbcore.Engine(on_records=show)
engine.start()
app = lbcore.Application("orders", [lbcore.UpstreamServer(upstream)])
pem = Path(certs)
tls = lbcore.ServerTLS(cert=pem / "server.pem", key=pem / "server.key", client_ca=pem / "ca.pem")
print("listening on", engine.listen(app, address, tls=tls, authorize=decide).address, flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
engine.stop(drain=10)
