"""Stage 6."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# NEXT: conn.picked is counted in its in_flight; CLOSE: no upstream is left to try.
cdef step_t pick_step(conn_t *conn, worker_t *worker) noexcept nogil
