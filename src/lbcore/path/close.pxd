"""Stage 9."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t

# Gives the upstream back after a failed dial; the early bytes stay.
cdef void close_upstream(conn_t *conn, worker_t *worker) noexcept nogil
# FREED: the slot is free again; WAIT: everything is released but the socket, which lingers until the
# client has read our last words.
cdef step_t close_step(conn_t *conn, worker_t *worker) noexcept nogil
