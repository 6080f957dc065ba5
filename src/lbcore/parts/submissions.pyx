"""Sockets from Python on their way in, and how their connections ended on the way back.

A record in a ring may be dropped when nobody reads; a completion may not, since somebody waits for it. So its
memory is there from the start, and the queue is a list of those: a stack (R. K. Treiber, 1986) that the
reader takes as a whole, which leaves no room for the ABA problem. Who pushes onto the empty stack wakes the
reader.

Writers: any thread. Reader: one.
"""

from libc.stdint cimport uint64_t, uintptr_t
from libc.stdlib cimport calloc, free

from lbcore.parts.cells cimport limiter_unref, listener_unref, name_unref
from lbcore.sys.atomics cimport word_exchange, word_read, word_swap
from lbcore.sys.linux cimport write


cdef submission_t *submission_new() noexcept nogil:
    return <submission_t *>calloc(1, sizeof(submission_t))


cdef void submission_free(submission_t *submission) noexcept nogil:
    listener_unref(submission.door)
    limiter_unref(submission.limiter)
    name_unref(submission.client)
    completion_free(submission.completion)
    free(submission)


cdef completion_t *completion_new() noexcept nogil:
    return <completion_t *>calloc(1, sizeof(completion_t))


cdef void completion_free(completion_t *completion) noexcept nogil:
    if completion != NULL:
        name_unref(completion.record.client)
        name_unref(completion.record.upstream)
        free(completion.record.leaf)
        free(completion)


cdef void completions_push(node_t *node, completion_t *completion) noexcept nogil:
    cdef uint64_t seen
    cdef uint64_t one = 1
    while True:
        seen = word_read(&node.completions)
        completion.next = <completion_t *><uintptr_t>seen
        if word_swap(&node.completions, seen, <uint64_t><uintptr_t>completion):
            break
    if seen == 0:
        write(node.completions_fd, &one, sizeof(one))


cdef completion_t *completions_take(node_t *node) noexcept nogil:
    cdef completion_t *newest = <completion_t *><uintptr_t>word_exchange(&node.completions, 0)
    cdef completion_t *oldest = NULL
    cdef completion_t *following
    while newest != NULL:
        following = newest.next
        newest.next = oldest
        oldest = newest
        newest = following
    return oldest
