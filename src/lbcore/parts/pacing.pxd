"""How fast one connection may read: leases from the bandwidth of its scopes."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport conn_t, leg_t

# Whether the leg may read now, `leg.lease` bytes; else it is paused until `leg.ready_ns`.
cdef bint pacing_may_read(conn_t *conn, leg_t *leg, uint64_t now_ns) noexcept nogil
# Gives back what was leased and not read; harmless when there is nothing.
cdef void pacing_return(conn_t *conn, leg_t *leg) noexcept nogil
