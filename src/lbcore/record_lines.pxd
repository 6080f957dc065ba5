"""Finished connections as lines of JSON. With the GIL: only the record thread writes them."""

from libc.stdint cimport int64_t, uint64_t

from lbcore.structs cimport record_t
from lbcore.sys.linux cimport sockaddr_in6


cdef enum:
    LINES_BYTES = 65536
    ADDRESS_MAX = 54             # bytes of put_address: [ ] : 46 of INET6_ADDRSTRLEN, 5 of a port


cdef class LineBuffer:
    cdef object write            # called with whole lines, as bytes
    cdef bytes head              # of each line, from the time on
    cdef double sample           # part of the connections that are written
    cdef double share            # of the next one that was carried over
    cdef char *lines             # LINES_BYTES; owned
    cdef size_t length
    cdef size_t line_max         # bytes of the longest line
    cdef int64_t second          # that `stamp` shows
    cdef char stamp[20]

    cdef bint is_full(self) noexcept     # to be flushed before the next line
    # These call Python, so they need the GIL and may raise.
    # False: there is more to say than a line has room for; nothing was written.
    cdef bint take(self, const record_t *entry, bytes boot, str app) except -1
    cdef flush(self)
    cdef bint is_sampled(self) noexcept
    cdef char *put_time(self, char *at, uint64_t wall_ns) noexcept


# host:port as people write it, IPv4 that came in over IPv6 as IPv4; answers where it ends.
cdef char *put_address(char *at, const sockaddr_in6 *address) noexcept nogil
