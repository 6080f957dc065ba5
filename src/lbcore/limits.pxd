from lbcore.structs cimport limiter_t, scope_t


cdef class RateLimitManager:
    cdef limiter_t *cell         # one reference
    cdef readonly str name

# For lbcore: a limiter of another scope than a client's. Makes a Python object, so it needs the GIL.
cdef RateLimitManager limiter_of(str name, scope_t scope, object max_open, object rate, object burst)
