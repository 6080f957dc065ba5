"""The TLS engines of this build. For set-up threads, which hold the GIL."""

from lbcore.tls.engine cimport tls_engine_t

# For the module of an engine, when it is imported.
cdef void engines_add(tls_engine_t *engine, str version)
# NULL raises: ValueError, no such engine.
cdef const tls_engine_t *engines_find(str name) except NULL
