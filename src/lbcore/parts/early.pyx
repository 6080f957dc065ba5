"""A client may speak before it is let in; a server-first protocol never does. Both must work, so nothing
waits for a client's byte and none is lost: what arrives is decrypted at once and held; with 16 KiB
no more is read. Over TLS the rest of a record that had begun comes on top: less than 32 KiB in all.

Decrypting at once is what tells a half-close (close_notify; the connection goes on) from a client that
vanished (a bare FIN; there is nobody left to dial for).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from lbcore.codes cimport REASON_CLIENT_GONE, REASON_ERROR, STEP_CLOSE, STEP_WAIT
from lbcore.parts.chunks cimport chunk_append, chunk_give
from lbcore.parts.legs cimport leg_decrypt, leg_io, leg_put_payload
from lbcore.parts.poller cimport poller_want
from lbcore.parts.sockets cimport socket_error
from lbcore.structs cimport HELD_MAX, LEG_CLEAN, LEG_ENDED, LEG_GARBLED, LEG_HUNG_UP, LEG_READABLE
from lbcore.sys.linux cimport EAGAIN, EINTR, EPOLLIN, EPOLLRDHUP, errno, recv


cdef uint32_t held(conn_t *conn) noexcept nogil:
    return conn.early.length if conn.early != NULL else 0


cdef bint may_read(conn_t *conn) noexcept nogil:
    """Answers of TLS that the client did not take wait until it is forwarded. Nothing makes room for more of
    them beside what is held, so it gets no more."""
    return not conn.client.flags & LEG_ENDED and held(conn) < HELD_MAX and conn.client.out == NULL


cdef step_t gone(conn_t *conn, int problem) noexcept nogil:
    conn.reason = REASON_CLIENT_GONE
    conn.sys_errno = problem
    return STEP_CLOSE


cdef step_t early_keep(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef size_t used
    if worker.io.input_at == worker.io.input_length:
        return STEP_WAIT
    conn.sys_errno = leg_decrypt(worker, &conn.client, &used, &conn.tls_error)
    if conn.sys_errno != 0:
        conn.reason = REASON_ERROR
        return STEP_CLOSE
    if conn.client.flags & LEG_GARBLED:
        return gone(conn, 0)
    return hold(conn, worker, worker.scratch_plain, used)


cdef step_t hold(conn_t *conn, worker_t *worker, const uint8_t *data, size_t length) noexcept nogil:
    conn.client.bytes += length
    conn.client.lease -= <int64_t>length     # paid for before the next read
    if not chunk_append(&worker.chunks, &conn.early, data, length):
        conn.reason = REASON_ERROR
        return STEP_CLOSE
    return STEP_WAIT


cdef step_t early_read(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef ssize_t got
    cdef step_t step = STEP_WAIT
    cdef int problem
    conn.client.flags &= ~<uint32_t>LEG_READABLE
    if may_read(conn):
        got = recv(conn.client.fd, worker.scratch_in, HELD_MAX - held(conn), 0)
        if got < 0 and errno != EAGAIN and errno != EINTR:
            return gone(conn, errno)
        if got == 0:
            if conn.client.tls != NULL:
                return gone(conn, 0)                     # FIN without close_notify
            conn.client.flags |= LEG_ENDED | LEG_CLEAN   # a half-close
        elif got > 0 and conn.client.tls != NULL:
            leg_io(worker, worker.scratch_in, <size_t>got)
            step = early_keep(conn, worker)
        elif got > 0:
            step = hold(conn, worker, worker.scratch_in, <size_t>got)
    if conn.client.flags & LEG_HUNG_UP:
        problem = socket_error(conn.client.fd)
        if problem != 0:
            return gone(conn, problem)
    if step == STEP_WAIT:
        early_watch(conn, worker)
    return step


cdef void early_watch(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef uint32_t wanted = 0
    if may_read(conn):
        wanted = EPOLLIN | EPOLLRDHUP
    poller_want(worker.epoll_fd, conn, &conn.client, wanted)


cdef int early_deliver(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef int problem = 0
    if conn.early != NULL:
        problem = leg_put_payload(
            worker, &conn.upstream, conn.early.data + conn.early.start, conn.early.length)
        early_drop(conn, worker)
    return problem


cdef void early_drop(conn_t *conn, worker_t *worker) noexcept nogil:
    if conn.early != NULL:
        chunk_give(&worker.chunks, conn.early)
        conn.early = NULL
