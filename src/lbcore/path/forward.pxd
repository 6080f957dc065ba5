"""Stage 8."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# WAIT: going on; CLOSE: over, `reason` says how it ended.
cdef step_t forward_step(conn_t *conn, worker_t *worker) noexcept nogil
