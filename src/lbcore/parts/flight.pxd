"""What a client announces before its handshake is encrypted."""

from libc.stdint cimport uint8_t

from lbcore.codes cimport reason_t
from lbcore.structs cimport flight_t


cdef enum:
    FLIGHT_HEADER = 9            # of a record, and of the message that begins in it

# Looks at what came next. REASON_NONE, or why it is not read any further.
cdef reason_t flight_judge(flight_t *flight, const uint8_t *data, size_t length) noexcept nogil
