"""Bytes a second of one scope and direction, shared by all its connections."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport bandwidth_t

cdef enum:
    BANDWIDTH_RATE_MAX = 10000000000     # bytes a second; more would overflow 64 bits

# Puts so many bytes on the account. The time from which they may be moved: now or later, first come first
# served.
cdef uint64_t bandwidth_reserve(bandwidth_t *bandwidth, uint64_t amount, uint64_t now_ns) noexcept nogil
# Takes them off again: they were not moved.
cdef void bandwidth_return(bandwidth_t *bandwidth, uint64_t amount) noexcept nogil
# How many bytes to reserve at once: few enough that turns come often, enough that they pay.
cdef uint64_t bandwidth_quantum(const bandwidth_t *bandwidth) noexcept nogil
# The account as the time until it is even, and back: what a snapshot keeps.
cdef uint64_t bandwidth_debt_ns(bandwidth_t *bandwidth, uint64_t now_ns) noexcept nogil
cdef void bandwidth_owe(bandwidth_t *bandwidth, uint64_t debt_ns, uint64_t now_ns) noexcept nogil
