"""Stage 5."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# NEXT: counted in every scope; CLOSE: refused, counted in none; WAIT: held back, counted in none.
cdef step_t limit_step(conn_t *conn, worker_t *worker) noexcept nogil
