"""Stage 3."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# NEXT: the serial number is known and was issued by the one CA to a client; CLOSE: refused.
cdef step_t authenticate_step(conn_t *conn, worker_t *worker) noexcept nogil
