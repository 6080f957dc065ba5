"""The list of parked connections, walked when an answer or a new policy comes."""


cdef void parking_enter(worker_t *worker, conn_t *conn) noexcept nogil:
    conn.parked = True
    conn.asked = False
    conn.parked_prev = NULL
    conn.parked_next = worker.parked
    if worker.parked != NULL:
        worker.parked.parked_prev = conn
    worker.parked = conn


cdef void parking_leave(worker_t *worker, conn_t *conn) noexcept nogil:
    if not conn.parked:
        return
    conn.parked = False
    if conn.parked_prev != NULL:
        conn.parked_prev.parked_next = conn.parked_next
    else:
        worker.parked = conn.parked_next
    if conn.parked_next != NULL:
        conn.parked_next.parked_prev = conn.parked_prev
    conn.parked_next = NULL
    conn.parked_prev = NULL
