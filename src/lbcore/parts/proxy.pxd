"""The PROXY header: who is behind a connection, told to its upstream."""

from libc.stdint cimport uint8_t

from lbcore.structs cimport conn_t, worker_t


# Writes the header that the application's upstreams get; `out` has SCRATCH_BYTES. How long it is; 0: they
# get none, or the client's socket does not tell its address (errno).
cdef size_t proxy_write(conn_t *conn, worker_t *worker, uint8_t *out) noexcept nogil
