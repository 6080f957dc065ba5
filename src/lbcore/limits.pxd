from libc.stdint cimport uint64_t

from lbcore.structs cimport limiter_t, scopes_t


cdef class RateLimitManager:
    cdef limiter_t *cell         # one reference
    cdef scopes_t chain          # the cell and its parents
    cdef readonly str name
    cdef readonly object limits  # LimitClass
    cdef readonly RateLimitManager parent
    cdef readonly object clock   # ManualClock or None

    cdef _allocate(self, limits)
    cdef uint64_t now_ns(self) except? 0
    # Raises where it cannot serve connections of an engine.
    cdef check_usable(self, str argument)
