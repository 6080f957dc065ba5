"""Stage 2."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# NEXT: TLS 1.3 is up and the client proved that it holds its key (or the listener is plaintext);
# WAIT: for the client; CLOSE: refused, late or gone.
cdef step_t handshake_step(conn_t *conn, worker_t *worker) noexcept nogil
