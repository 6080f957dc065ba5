"""The engine on the system's OpenSSL: its table, filled when the module is imported."""

from lbcore.tls.engine cimport tls_engine_t

cdef tls_engine_t openssl_engine
