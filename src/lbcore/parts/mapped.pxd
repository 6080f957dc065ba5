"""IPv4 addresses that came in over an IPv6 socket: ::ffff:0:0/96 (RFC 4291, 2.5.5.2)."""

from libc.stdint cimport uint8_t

from lbcore.sys.linux cimport memcmp

cdef enum:
    MAPPED_AT = 12               # where the four octets of IPv4 are


cdef inline bint is_mapped(const uint8_t *octets) noexcept nogil:
    """Of 16 octets."""
    return memcmp(octets, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", MAPPED_AT) == 0
