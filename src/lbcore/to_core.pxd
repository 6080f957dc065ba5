"""Cells out of what Python was given. With the GIL: set-up threads only."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport name_t, networks_t, policy_t, tls_generation_t
from lbcore.tls.engine cimport tls_engine_t


# Of listeners and TLS generations; never reused in this process.
cdef uint64_t new_cell_id() noexcept
# These read Python objects and raise what is wrong with them; each result is one reference.
cdef name_t *make_name(str text) except NULL
cdef tls_generation_t *make_tls(const tls_engine_t *engine, object settings) except NULL
cdef tls_generation_t *make_client_tls(const tls_engine_t *engine, object settings) except NULL
cdef policy_t *make_policy(list clients) except NULL
# Reads them as well; not counted, the caller owns them. NULL: there are none.
cdef networks_t *make_networks(tuple networks) except? NULL
