"""Kernel pipes that splice moves bytes through, borrowed while a direction is in bulk.

Ordinary users share `pipe-user-pages-soft` (16 384 pages by default, pipe(7)) over all their
processes: after 256 pipes of 256 KiB, new ones shrink to 8 KiB and F_SETPIPE_SZ fails with EPERM.
Root is exempt, which hides it. So all workers together make at most `pipes_max` pipes, a quarter of
that allowance, every size is read back, and a pipe too small to pay is not used.
"""

from libc.stdlib cimport free, malloc

from lbcore.sys.atomics cimport word_add, word_subtract
from lbcore.sys.linux cimport F_GETPIPE_SZ, F_SETPIPE_SZ, O_CLOEXEC, O_NONBLOCK, close, fcntl, pipe2

cdef enum:
    PIPE_USEFUL = 65536          # what Linux gives without being asked; in less, copies are cheaper
    KEPT_MAX = 8                 # idle ones a worker keeps


cdef pipe_t *pipe_take(worker_t *worker) noexcept nogil:
    cdef pipe_t *pipe = worker.pipes_free
    if pipe != NULL:
        worker.pipes_free = pipe.next
        worker.pipes_kept -= 1
        pipe.next = NULL
        return pipe
    if <long>word_add(&worker.node.pipes, 1) > worker.node.pipes_max:
        word_subtract(&worker.node.pipes, 1)
        return NULL
    pipe = pipe_new()
    if pipe == NULL:
        word_subtract(&worker.node.pipes, 1)
    return pipe


cdef pipe_t *pipe_new() noexcept nogil:
    cdef int ends[2]
    cdef int room
    cdef pipe_t *pipe
    if pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0:
        return NULL
    fcntl(ends[1], F_SETPIPE_SZ, <int>PIPE_BYTES)
    room = fcntl(ends[1], F_GETPIPE_SZ)
    pipe = <pipe_t *>malloc(sizeof(pipe_t)) if room >= PIPE_USEFUL else NULL
    if pipe == NULL:
        close(ends[0])
        close(ends[1])
        return NULL
    pipe.next = NULL
    pipe.read_fd = ends[0]
    pipe.write_fd = ends[1]
    pipe.room = room
    pipe.length = 0
    return pipe


cdef void pipe_give(worker_t *worker, pipe_t *pipe) noexcept nogil:
    if pipe.length > 0 or worker.pipes_kept >= KEPT_MAX:
        pipe_free(worker, pipe)
        return
    pipe.next = worker.pipes_free
    worker.pipes_free = pipe
    worker.pipes_kept += 1


cdef void pipe_free(worker_t *worker, pipe_t *pipe) noexcept nogil:
    close(pipe.read_fd)
    close(pipe.write_fd)
    free(pipe)
    word_subtract(&worker.node.pipes, 1)


cdef void pipes_fini(worker_t *worker) noexcept nogil:
    cdef pipe_t *pipe
    while worker.pipes_free != NULL:
        pipe = worker.pipes_free
        worker.pipes_free = pipe.next
        pipe_free(worker, pipe)
    worker.pipes_kept = 0
