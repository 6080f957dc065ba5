"""The PROXY header: who is behind a connection, told to its upstream."""

from libc.stdint cimport uint8_t

from lbcore.structs cimport conn_t, worker_t


cdef enum:
    PROXY_SIGNATURE = 12         # bytes that version 2 begins with
    PROXY_FIXED = 16             # of version 2: signature, command, family, length
    PROXY_LOCAL = 0x20           # command: nobody is behind this connection
    PROXY_PROXY = 0x21           # command: the addresses are somebody else's
    PROXY_TCP4 = 0x11
    PROXY_TCP6 = 0x21
    PROXY_CRC32C = 0x03          # fields behind the addresses
    PROXY_UNIQUE_ID = 0x05
    PROXY_SSL = 0x20

cdef inline const char *proxy_signature() noexcept nogil:
    return b"\r\n\r\n\0\r\nQUIT\n"

# Writes the header that the application's upstreams get; `out` has SCRATCH_BYTES. How long it is; 0: they
# get none, or the client's socket does not tell its address (errno).
cdef size_t proxy_write(conn_t *conn, worker_t *worker, uint8_t *out) noexcept nogil
