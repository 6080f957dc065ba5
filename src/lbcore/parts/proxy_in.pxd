"""The PROXY header: who is behind a connection, told to us."""

from libc.stdint cimport uint8_t

from lbcore.sys.linux cimport sockaddr_in6


cdef enum:
    PROXY_MORE = 0               # so far it may become a header
    PROXY_BAD = -1               # it is none, or not one that may be believed
    PROXY_MAX = 4112             # bytes of the longest header that is taken

cdef struct proxy_header_t:
    sockaddr_in6 source          # holds sockaddr_in as well; family 0: the header does not say
    sockaddr_in6 target          # of the same family

# Reads the header that the bytes begin with: how long it is, PROXY_MORE or PROXY_BAD. What follows it does
# not matter. Whatever the answer, `out` is overwritten.
cdef int proxy_read(const uint8_t *data, size_t length, proxy_header_t *out) noexcept nogil
