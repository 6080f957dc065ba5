"""Which limiters a connection counts in."""

from lbcore.structs cimport conn_t, limiter_t, scopes_t

# Adds a limiter and its parents, inner to outer; one that is there already is not counted twice.
# False: there are too many.
cdef bint scopes_add(scopes_t *scopes, limiter_t *limiter) noexcept nogil
# Those of its verdict, of whoever submitted it, and of its application. False: there are too many.
cdef bint scopes_of(const conn_t *conn, scopes_t *out_scopes) noexcept nogil
