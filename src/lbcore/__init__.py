"""lbcore: the data plane of a TCP load balancer for zero-trust networks.

Every client proves who it is by mutual TLS 1.3, is let into named applications, is held to its limits
and forwarded to the least loaded upstream, by threads that never take the interpreter's lock:

    import lbcore

    app = lbcore.Application("orders", [lbcore.UpstreamServer("10.0.1.11:5432")])
    engine = lbcore.Engine(workers=2)
    engine.start()
    tls = lbcore.ServerTLS(cert="server.pem", key="server.key", client_ca="ca.pem")
    engine.listen(app, "0.0.0.0:7306", tls=tls, authorize=decide)

The public names are those below; everything else may change.
"""

from lbcore._layout import check_layouts
from lbcore.application import Application, UpstreamServer
from lbcore.clock import ManualClock
from lbcore.codes import REASONS, STAGES
from lbcore.engine import Engine, Listener
from lbcore.limit_values import Admission, LimitClass
from lbcore.limits import RateLimitManager
from lbcore.peer import PeerCertificate, PolicyClient, Undecided, Verdict
from lbcore.records import Record, RecordLines, RecordSelection, RefusalSum
from lbcore.settings import ServerTLS, UpstreamTLS
from lbcore.simulation import SimulatedConnection, Simulation
from lbcore.tls_engines import tls_engines

check_layouts()

__all__ = [
    "REASONS",
    "STAGES",
    "Admission",
    "Application",
    "Engine",
    "LimitClass",
    "Listener",
    "ManualClock",
    "PeerCertificate",
    "PolicyClient",
    "RateLimitManager",
    "Record",
    "RecordLines",
    "RecordSelection",
    "RefusalSum",
    "ServerTLS",
    "SimulatedConnection",
    "Simulation",
    "Undecided",
    "UpstreamServer",
    "UpstreamTLS",
    "Verdict",
    "tls_engines",
]
