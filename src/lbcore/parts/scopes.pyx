"""Which limiters a connection counts in.

The list follows from three things that never change while a connection lives, so it is made when it is needed
instead of being kept: it would be a third of a connection's size.

Any thread.
"""

from libc.stdint cimport uint32_t

from lbcore.structs cimport SCOPES_MAX


cdef bint scopes_of(const conn_t *conn, scopes_t *out_scopes) noexcept nogil:
    out_scopes.count = 0
    out_scopes.windowed = False
    if conn.verdict != NULL and not scopes_add(out_scopes, conn.verdict.limiter):
        return False
    return scopes_add(out_scopes, conn.limiter) and scopes_add(out_scopes, conn.app.limiter)


cdef bint scopes_add(scopes_t *scopes, limiter_t *limiter) noexcept nogil:
    while limiter != NULL:
        if not is_there(scopes, limiter):
            if scopes.count == SCOPES_MAX:
                return False
            scopes.items[scopes.count] = limiter
            scopes.count += 1
            if limiter.window != NULL:
                scopes.windowed = True
        limiter = limiter.parent
    return True


cdef bint is_there(scopes_t *scopes, limiter_t *limiter) noexcept nogil:
    cdef uint32_t i
    for i in range(scopes.count):
        if scopes.items[i] is limiter:
            return True
    return False
