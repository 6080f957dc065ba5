"""The beginning of stage 2: a proxy in front of us says who the client is, before TLS.

Only whom the operator has listed is believed, and has to say it; from all others such a header is what any
wrong first byte is. Until it is there, the connection is a stranger's, with the handshake's deadline, on a
plaintext listener too.

The header is looked at where it lies and then taken in its exact length, so that what follows stays in the
socket for TLS or splice. Bytes that are left there would wake the worker again and again, so this is the one
place where a socket is watched by its edges: more bytes, or an end, wake it once.
"""

from libc.stdint cimport uint32_t

from lbcore.codes cimport (
    REASON_BAD_PROXY_HEADER,
    REASON_CLIENT_GONE,
    REASON_ERROR,
    REASON_HANDSHAKE_TIMEOUT,
    STEP_CLOSE,
    STEP_NEXT,
    STEP_WAIT,
    reason_t,
)
from lbcore.parts.poller cimport poller_want
from lbcore.parts.proxy_in cimport PROXY_BAD, PROXY_MAX, PROXY_MORE, proxy_header_t, proxy_read
from lbcore.parts.sockets cimport socket_error, socket_has_ended
from lbcore.parts.strangers cimport known_enter
from lbcore.parts.timers cimport timer_arm, timer_disarm
from lbcore.structs cimport LEG_READABLE
from lbcore.sys.linux cimport EAGAIN, EINTR, EPOLLET, EPOLLIN, EPOLLRDHUP, MSG_PEEK, errno, recv


cdef step_t header_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef proxy_header_t header
    cdef int found
    if not conn.client.watched:
        timer_arm(&worker.wheel, conn, conn.accepted_ns + worker.node.handshake_timeout_ns)
        return watch(conn, worker, EPOLLIN | EPOLLRDHUP | EPOLLET)
    if conn.expired:
        conn.expired = False
        return over(conn, REASON_HANDSHAKE_TIMEOUT)
    if not conn.client.flags & LEG_READABLE:
        return STEP_WAIT
    conn.client.flags &= ~<uint32_t>LEG_READABLE
    found = look(conn, worker, &header)
    if found == PROXY_MORE and socket_has_ended(conn.client.fd):
        found = look(conn, worker, &header)      # its last bytes may have come in between
        if found == PROXY_MORE:
            conn.sys_errno = socket_error(conn.client.fd)
            return over(conn, REASON_CLIENT_GONE)
    if found == PROXY_MORE:
        return STEP_WAIT
    if found == PROXY_BAD:
        return STEP_CLOSE
    return believe(conn, worker, &header, <size_t>found)


cdef step_t over(conn_t *conn, reason_t reason) noexcept nogil:
    conn.reason = reason
    return STEP_CLOSE


cdef step_t watch(conn_t *conn, worker_t *worker, uint32_t wanted) noexcept nogil:
    conn.sys_errno = poller_want(worker.epoll_fd, conn, &conn.client, wanted)
    return STEP_WAIT if conn.sys_errno == 0 else over(conn, REASON_ERROR)


cdef int look(conn_t *conn, worker_t *worker, proxy_header_t *out_header) noexcept nogil:
    """As `proxy_read`; PROXY_BAD with the reason."""
    cdef ssize_t got = recv(conn.client.fd, worker.scratch_in, PROXY_MAX, MSG_PEEK)
    cdef int found
    if got < 0 and (errno == EAGAIN or errno == EINTR):
        return PROXY_MORE
    if got <= 0:
        conn.sys_errno = errno if got < 0 else 0
        conn.reason = REASON_CLIENT_GONE
        return PROXY_BAD
    found = proxy_read(worker.scratch_in, <size_t>got, out_header)
    if found == PROXY_BAD:
        conn.reason = REASON_BAD_PROXY_HEADER
    return found


cdef step_t believe(conn_t *conn, worker_t *worker, const proxy_header_t *header,
                    size_t length) noexcept nogil:
    if recv(conn.client.fd, worker.scratch_in, length, 0) != <ssize_t>length:
        return over(conn, REASON_ERROR)  # not even a reset takes back what was looked at
    conn.fronted = False
    if header.source.sin6_family != 0:
        conn.source = header.source
        conn.target = header.target
    # What came with it has woken us already; and from here on bytes that are left wake us again.
    conn.client.flags |= LEG_READABLE
    if watch(conn, worker, EPOLLIN | EPOLLRDHUP) == STEP_CLOSE:
        return STEP_CLOSE
    if conn.tls != NULL:
        return STEP_NEXT
    timer_disarm(&worker.wheel, conn)
    return STEP_NEXT if known_enter(worker, conn) else STEP_CLOSE
