from lbcore.structs cimport app_t, upstream_t


cdef class UpstreamServer:
    cdef upstream_t *cell        # one reference
    cdef bint taken              # by an application
    cdef readonly str address
    cdef readonly int weight
    cdef readonly object max_connections


cdef class Application:
    cdef app_t *cell             # one reference
    cdef bint simulated          # a Simulation has it; no engine may
    cdef readonly str name
    cdef readonly tuple upstreams
    cdef readonly object max_connections
    cdef readonly object limits  # RateLimitManager or None
    cdef readonly object engine  # Engine or None

    # Raises where an engine cannot serve it.
    cdef check_usable(self)
    # NULL raises: its __init__ was not called.
    cdef app_t *made(self) except NULL
