"""The s2n-tls engine: its table, filled when the module is imported."""

from lbcore.tls.engine cimport tls_engine_t

cdef tls_engine_t s2n_engine
