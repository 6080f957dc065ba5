"""Certificate revocation lists (RFC 5280, 5) as a frozen table: serial numbers, and until when it speaks."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore.codes cimport reason_t
from lbcore.structs cimport revoked_t


# A table with room for `count` serials, to be filled in ascending order. NULL: out of memory. `free` ends it.
cdef revoked_t *revoked_new(uint32_t count) noexcept nogil
cdef void revoked_set(revoked_t *revoked, uint32_t place, const uint8_t *serial,
                      uint8_t length) noexcept nogil
# REASON_NONE, REASON_REVOKED, or REASON_CRL_EXPIRED for everybody: nobody knows who was revoked since.
# Any thread.
cdef reason_t revoked_judge(const revoked_t *revoked, const uint8_t *serial, uint8_t length,
                            uint64_t wall_ns) noexcept nogil
