"""Borrowed kernel pipes for splice, under one budget for all workers."""

from lbcore.structs cimport pipe_t, worker_t

cdef enum:
    PIPE_BYTES = 262144          # of each: more than a direction may hold, and pages are seldom full


# An empty pipe, or NULL: the budget is spent, or the kernel gives no useful size; copy instead.
cdef pipe_t *pipe_take(worker_t *worker) noexcept nogil
# Takes it back; one that still holds bytes is closed, since they belong to a dead connection.
cdef void pipe_give(worker_t *worker, pipe_t *pipe) noexcept nogil
cdef void pipes_fini(worker_t *worker) noexcept nogil
