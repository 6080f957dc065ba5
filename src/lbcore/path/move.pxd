"""How bytes get from one leg to the other (part of stage 8)."""

from libc.stdint cimport uint32_t

from lbcore.structs cimport conn_t, leg_t, worker_t


# One batch from `source` to `target`, which has nothing waiting. Marks the legs: ENDED, CLEAN, BROKEN,
# and READABLE off. 0 or an errno.
cdef int move_bytes(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target) noexcept nogil
# How much the direction from `source` to `target` may read, or have in its pipe, so that whatever becomes of
# it fits beside what the other direction holds.
cdef uint32_t move_room(leg_t *source, leg_t *target) noexcept nogil
# A quiet direction gives its pipe back; what was in it waits in target.out. 0, or an errno: bytes are lost.
cdef int move_out_of_pipe(worker_t *worker, leg_t *source, leg_t *target) noexcept nogil


cdef inline bint move_pending(leg_t *source, leg_t *target) noexcept nogil:
    """Whether bytes of `source` wait for `target`'s socket, in a buffer or in a pipe."""
    return target.out != NULL or (source.pipe != NULL and source.pipe.length > 0)
