"""Stage 4."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, verdict_t, worker_t

# NEXT: allowed, conn.verdict says as whom; WAIT: parked until the policy answers; CLOSE: refused.
cdef step_t authorize_step(conn_t *conn, worker_t *worker) noexcept nogil
# Whether an answer is the one this parked connection waits for.
cdef bint authorize_matches(conn_t *conn, worker_t *worker, verdict_t *verdict) noexcept nogil
