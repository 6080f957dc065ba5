"""Stage 7."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# NEXT: connected; WAIT: under way; REPICK: this upstream failed, sys_errno says how; CLOSE: we could
# not even try, or the attempts are used up.
cdef step_t dial_step(conn_t *conn, worker_t *worker) noexcept nogil
