"""Events, and one record for each connection and each refusal.

    journal = Journal(config.logging, node="lb-1", stderr=LineWriter(Descriptor(2)), pretty=True)
    engine = lbcore.Engine(record_lines=journal.record_lines, record_selection=journal.record_selection)
    journal.event("ready", app="orders-db", listen="0.0.0.0:7306", upstreams=3)
    journal.tick()      # once a second: what was lost
    journal.close()

The path of a line: the engine holds refusals to a rate, `records` turns a `Record` into fields, `lines`
makes them text, `writer` puts that on its way without ever waiting for who reads it. Nothing a
stranger wrote into a certificate passes `printable` unchanged.

Records: `conn.close`, `conn.deny`; above `logging.max_denied_per_second` the rest of a second is one
`conn.deny.sum` (`conn.close.sum` for clients that left before they were let in). Events: `start`,
`limits` (descriptors), `limits.restored`, `limits.corrupt`, `limits.failed`, `limits.resumed`
(`node.limits_file`), `plaintext`, `ready`, `certificate`, `config`, `upstream`, `accept.failed`,
`reload`, `stop`, `drain`, `stopped`, `log` (a message of a library), `log.lost`, `log.failed`,
`log.resumed`, `log.error`.
"""

from lbctl.logs.journal import Journal
from lbctl.logs.sinks import Descriptor, LogFile
from lbctl.logs.writer import LineWriter

__all__ = ["Descriptor", "Journal", "LineWriter", "LogFile"]
