"""Bytes a client sends before its connection is forwarded: held, bounded, never delivered early."""

from lbcore.codes cimport step_t
from lbcore.structs cimport conn_t, worker_t


# Holds what is left in worker.io.input after the handshake.
# WAIT: go on; CLOSE: the client is gone.
cdef step_t early_keep(conn_t *conn, worker_t *worker) noexcept nogil
# The client's socket has something while its connection waits for a verdict, a dial.
cdef step_t early_read(conn_t *conn, worker_t *worker) noexcept nogil
# Hands what was held to the upstream. 0, or an errno: the upstream is broken, or a byte is lost.
cdef int early_deliver(conn_t *conn, worker_t *worker) noexcept nogil
# Forgets it.
cdef void early_drop(conn_t *conn, worker_t *worker) noexcept nogil
# Watches the client while its connection waits.
cdef void early_watch(conn_t *conn, worker_t *worker) noexcept nogil
