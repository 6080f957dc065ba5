"""Who has to go when a full scope replaces its oldest connection.

Each worker keeps its own connections of such a scope in order of age, and publishes the id of the oldest: ids
grow with accept, so the lowest of those is the oldest of all. A connection is in one succession only, that of
the innermost scope that has one.

Workers are numbered within an engine, so a succession belongs to one engine at a time: `members` holds its
number beside the count, and while it is not zero, connections of another engine stay out (they are never
replaced, and count all the same).

Lists: the worker that owns them. Published ids and `members`: any thread.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc

from lbcore.sys.atomics cimport word_read, word_subtract, word_swap, word_write

cdef enum:
    NODE_SHIFT = 32
    COUNT_MASK = 0xffffffff


cdef succession_t *succession_new() noexcept nogil:
    return <succession_t *>calloc(1, sizeof(succession_t))


cdef void succession_enter(worker_t *worker, conn_t *conn, const scopes_t *scopes) noexcept nogil:
    cdef uint32_t i
    cdef succession_t *succession
    for i in range(scopes.count):
        succession = scopes.items[i].succession
        if succession != NULL and join(succession, worker.node):
            conn.succeeds = scopes.items[i]
            conn.younger = NULL
            conn.older = succession.tails[worker.number]
            if conn.older != NULL:
                conn.older.younger = conn
            else:
                succession.heads[worker.number] = conn
                publish(succession, worker.number)
            succession.tails[worker.number] = conn
            return


cdef bint join(succession_t *succession, const node_t *node) noexcept nogil:
    """One member more, unless those there are another engine's."""
    cdef uint64_t seen
    cdef uint64_t wanted
    while True:
        seen = word_read(&succession.members)
        if seen & COUNT_MASK and seen >> NODE_SHIFT != node.number:
            return False
        wanted = (<uint64_t>node.number << NODE_SHIFT) + (seen & COUNT_MASK) + 1
        if word_swap(&succession.members, seen, wanted):
            return True


cdef void publish(succession_t *succession, uint32_t number) noexcept nogil:
    cdef conn_t *head = succession.heads[number]
    word_write(&succession.oldest[number], head.id if head != NULL else 0)


cdef void succession_leave(worker_t *worker, conn_t *conn) noexcept nogil:
    cdef succession_t *succession
    if conn.succeeds == NULL:
        return
    succession = conn.succeeds.succession
    conn.succeeds = NULL
    if conn.younger != NULL:
        conn.younger.older = conn.older
    else:
        succession.tails[worker.number] = conn.older
    if conn.older != NULL:
        conn.older.younger = conn.younger
    else:
        succession.heads[worker.number] = conn.younger
        publish(succession, worker.number)
    conn.older = NULL
    conn.younger = NULL
    word_subtract(&succession.members, 1)


cdef int succession_worker(limiter_t *limiter, const node_t *node) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t id
    cdef uint64_t lowest = 0
    cdef int found = -1
    if word_read(&limiter.succession.members) >> NODE_SHIFT != node.number:
        return -1
    for i in range(node.worker_count):
        id = word_read(&limiter.succession.oldest[i])
        if id != 0 and (lowest == 0 or id < lowest):
            lowest = id
            found = <int>i
    return found


cdef conn_t *succession_oldest(worker_t *worker, limiter_t *limiter) noexcept nogil:
    return limiter.succession.heads[worker.number]
