"""Records as lines of JSON. With the GIL: only the record thread writes them."""

from libc.stdint cimport int64_t, uint64_t

from lbcore.structs cimport record_t
from lbcore.sys.linux cimport sockaddr_in6


cdef enum:
    LINES_BYTES = 65536
    ADDRESS_MAX = 54             # bytes of put_address: [ ] : 46 of INET6_ADDRSTRLEN, 5 of a port


cdef class LineBuffer:
    cdef object write            # called with whole lines, as bytes
    cdef object line             # called with a Record: its text, or None
    cdef bytes begin             # of each line, up to the time
    cdef bytes head              # from the time on
    cdef char *lines             # LINES_BYTES; owned
    cdef size_t length
    cdef size_t count            # of lines that wait
    cdef size_t line_max         # bytes of the longest line of `take`
    cdef int64_t second          # that `stamp` shows
    cdef char stamp[20]

    cdef bint is_full(self) noexcept     # one more line of `take` may not fit
    # These call Python, so they need the GIL and may raise.
    # False: there is more to say than a line has room for; nothing was written.
    cdef bint take(self, const record_t *entry, bytes boot, str app) except -1
    cdef put_text_of(self, record)
    # Writing is somebody else's, and may fail: that is logged, with what it cost.
    cdef flush(self)
    cdef send(self, bytes lines, size_t count)
    cdef char *put_time(self, char *at, uint64_t wall_ns) noexcept


# host:port as people write it, IPv4 that came in over IPv6 as IPv4; answers where it ends.
cdef char *put_address(char *at, const sockaddr_in6 *address) noexcept nogil
