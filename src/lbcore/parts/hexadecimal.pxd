"""Octets as upper-case hexadecimal digits: a serial number as `openssl x509 -serial` shows it."""

from libc.stdint cimport uint8_t


cdef inline char *put_hexadecimal(char *at, const uint8_t *octets, size_t count) noexcept nogil:
    """Two digits for each octet; answers where they end."""
    cdef const char *digits = b"0123456789ABCDEF"
    cdef size_t i
    for i in range(count):
        at[2 * i] = digits[octets[i] >> 4]
        at[2 * i + 1] = digits[octets[i] & 15]
    return at + 2 * count
