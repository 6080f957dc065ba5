"""Which serial numbers the CA has revoked.

A sorted array in one block: a look-up in a list of a million takes twenty comparisons and no memory of
its own. Built once with the TLS generation, read by every worker.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from lbcore.codes cimport REASON_CRL_EXPIRED, REASON_NONE, REASON_REVOKED
from lbcore.structs cimport SERIAL_OCTETS_MAX
from lbcore.sys.linux cimport memcmp, memcpy, memset


cdef revoked_t *revoked_new(uint32_t count) noexcept nogil:
    cdef revoked_t *revoked = <revoked_t *>calloc(1, sizeof(revoked_t) + <size_t>count * SERIAL_OCTETS_MAX)
    if revoked != NULL:
        revoked.count = count
        revoked.serials = <uint8_t *>(revoked + 1)
    return revoked


cdef void pad(uint8_t *place, const uint8_t *serial, uint8_t length) noexcept nogil:
    memset(place, 0, SERIAL_OCTETS_MAX - length)
    memcpy(place + SERIAL_OCTETS_MAX - length, serial, length)


cdef void revoked_set(revoked_t *revoked, uint32_t place, const uint8_t *serial,
                      uint8_t length) noexcept nogil:
    pad(revoked.serials + <size_t>place * SERIAL_OCTETS_MAX, serial, length)


cdef reason_t revoked_judge(const revoked_t *revoked, const uint8_t *serial, uint8_t length,
                            uint64_t wall_ns) noexcept nogil:
    cdef uint8_t wanted[SERIAL_OCTETS_MAX]
    cdef uint32_t low = 0
    cdef uint32_t high = revoked.count
    cdef uint32_t middle
    cdef int order
    if wall_ns >= revoked.ends_ns:
        return REASON_CRL_EXPIRED
    pad(wanted, serial, length)
    while low < high:
        middle = low + (high - low) // 2
        order = memcmp(revoked.serials + <size_t>middle * SERIAL_OCTETS_MAX, wanted, SERIAL_OCTETS_MAX)
        if order == 0:
            return REASON_REVOKED
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return REASON_NONE
