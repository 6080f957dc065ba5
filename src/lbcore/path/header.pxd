"""The beginning of stage 2, for connections of a proxy that tells who is behind them."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# NEXT: the header was there, and the connection's source is what it says; what follows it is still in the
# socket. WAIT: for more of it; CLOSE: it is none, late, or the proxy is gone.
cdef step_t header_step(conn_t *conn, worker_t *worker) noexcept nogil
