from libc.stdint cimport uint64_t

from lbcore.structs cimport app_t, pool_t, upstream_t
from lbcore.tls.engine cimport tls_engine_t


cdef class UpstreamServer:
    cdef upstream_t *cell        # one reference
    cdef app_t *app              # one reference: the application it belongs to, or NULL
    cdef readonly str address
    cdef readonly object max_connections
    cdef readonly object tls     # UpstreamTLS or None

    # Loads what `tls` names, or takes it from one in `loaded` that names the same; raises what that raises.
    cdef load_tls(self, const tls_engine_t *engine, dict loaded)
    # The application, or raises: it belongs to none.
    cdef app_t *owner(self) except NULL
    cdef object leaving          # held while it is told when its connections have to end
    cdef uint64_t drained_by_ns  # by then they end, monotonic; 0: they may stay
    cdef uint64_t down_by_ns     # the same, for the other reason
    cdef tuple told              # what the workers were told: (nanoseconds, reason)
    cdef _leave(self)


cdef class Application:
    cdef app_t *cell             # one reference
    cdef bint simulated          # a Simulation has it; no engine may
    cdef readonly str name
    cdef tuple servers
    cdef object changing         # held while the servers change
    cdef readonly object max_connections
    cdef readonly object limits  # RateLimitManager or None
    cdef readonly object engine  # Engine or None
    cdef double max_ejected
    cdef bint dynamic            # it may have none
    cdef const tls_engine_t *tls_engine    # what its servers speak TLS by, once it serves

    # Called by the engine that is going to serve it; raises when a server's TLS cannot be used.
    cdef prepare(self, const tls_engine_t *engine)
    # Raises where an engine cannot serve it.
    cdef check_usable(self)
    # NULL raises: its __init__ was not called.
    cdef app_t *made(self) except NULL
    cdef _claim(self, argument, UpstreamServer server, set marks)
    cdef _disclaim(self, UpstreamServer server)
    cdef pool_t *_replace(self, tuple servers) except? NULL
    # Of `load_tls`.
    cdef dict _loaded(self)
