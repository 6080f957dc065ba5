"""Stage 7, dial: open the connection to the picked upstream, and shake hands where it speaks TLS.

Nothing before this stage has sent a packet to any upstream. A failure of ours (no descriptor, no port,
no memory) is not held against the upstream and ends the connection; a failure of the upstream, its TLS
included, gives its count back and picks another one, at most `connect_attempts` times. One deadline covers an
attempt from the first packet to the last of the handshake.

On this machine `connect` has shaken hands when it returns, so the socket is asked before epoll is; elsewhere
that question costs a tenth of a microsecond.
"""

from libc.stdint cimport uint32_t

from lbcore.codes cimport (
    REASON_CONNECT_FAILED,
    REASON_UPSTREAM_TLS,
    STEP_CLOSE,
    STEP_NEXT,
    STEP_REPICK,
    STEP_WAIT,
    reason_t,
)
from lbcore.parts.cells cimport name_unref, upstream_family
from lbcore.parts.early cimport early_read, early_watch
from lbcore.parts.headroom cimport headroom_is_lacking, headroom_ran_out
from lbcore.parts.health cimport health_dialled, health_failed
from lbcore.parts.legs cimport leg_decrypt, leg_flush, leg_io, leg_put, leg_put_payload
from lbcore.parts.poller cimport poller_want
from lbcore.parts.proxy_out cimport proxy_write
from lbcore.parts.sockets cimport socket_error, socket_is_connected, socket_tune
from lbcore.parts.timers cimport timer_arm, timer_disarm
from lbcore.structs cimport (
    BATCH_MIN,
    LEG_HUNG_UP,
    LEG_READABLE,
    LEG_WRITABLE,
    PROXY_NONE,
    leg_t,
)
from lbcore.sys.linux cimport (
    AF_UNIX,
    EADDRNOTAVAIL,
    EAGAIN,
    EINPROGRESS,
    EINTR,
    ENOMEM,
    EPERM,
    EPOLLIN,
    EPOLLOUT,
    ETIMEDOUT,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    connect,
    errno,
    monotonic_ns,
    recv,
    sockaddr,
    socket,
)
from lbcore.tls.engine cimport TLS_DONE, TLS_FAILED, tls_failure_t, tls_result_t


cdef step_t dial_step(conn_t *conn, worker_t *worker) noexcept nogil:
    if conn.upstream.fd < 0:
        return start(conn, worker)
    if conn.expired:
        conn.expired = False
        return failed(conn, worker, REASON_CONNECT_FAILED, ETIMEDOUT)
    if conn.upstream.tls != NULL:
        return shake_hands(conn, worker)
    if not conn.upstream.flags & (LEG_WRITABLE | LEG_HUNG_UP):
        return STEP_WAIT
    # Only a socket that hung up has an error to tell (connect(2), epoll_ctl(2)).
    conn.sys_errno = socket_error(conn.upstream.fd) if conn.upstream.flags & LEG_HUNG_UP else 0
    if conn.sys_errno != 0:
        return failed(conn, worker, REASON_CONNECT_FAILED, conn.sys_errno)
    return connected(conn, worker)


cdef step_t start(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef int problem
    # Most clients speak at once: what they have said by now goes with the dial.
    if conn.attempts == 1 and conn.early == NULL and early_read(conn, worker) == STEP_CLOSE:
        return not_dialled(conn)
    conn.dialled_ns = worker.now_ns
    conn.upstream.fd = socket(upstream_family(conn.picked), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if conn.upstream.fd < 0:
        return ours(conn, worker, errno)
    if upstream_family(conn.picked) != AF_UNIX:
        problem = socket_tune(conn.upstream.fd)
        if problem != 0:
            return ours(conn, worker, problem)
    if connect(conn.upstream.fd, <const sockaddr *>conn.picked.address, conn.picked.address_length) == 0:
        return connected(conn, worker)
    problem = errno
    if problem in (EADDRNOTAVAIL, EPERM) or headroom_is_lacking(problem):
        return ours(conn, worker, problem)
    if problem != EINPROGRESS:
        return failed(conn, worker, REASON_CONNECT_FAILED, problem)
    if socket_is_connected(conn.upstream.fd):
        return connected(conn, worker)   # on this machine, the kernel has shaken hands by now
    problem = poller_want(worker.epoll_fd, conn, &conn.upstream, EPOLLOUT)
    if problem != 0:
        return ours(conn, worker, problem)
    early_watch(conn, worker)
    timer_arm(&worker.wheel, conn, worker.now_ns + conn.app.connect_timeout_ns)
    return STEP_WAIT


cdef step_t not_dialled(conn_t *conn) noexcept nogil:
    """Who has left is not dialled for, and the record names nobody who was not."""
    conn.attempts = 0
    name_unref(conn.upstream_name)
    conn.upstream_name = NULL
    return STEP_CLOSE


cdef step_t ours(conn_t *conn, worker_t *worker, int problem) noexcept nogil:
    if headroom_is_lacking(problem):
        headroom_ran_out(worker)         # or we would go on shaking hands with clients we cannot serve
    conn.sys_errno = problem
    conn.reason = REASON_CONNECT_FAILED
    return STEP_CLOSE


cdef step_t failed(conn_t *conn, worker_t *worker, reason_t reason, int problem) noexcept nogil:
    conn.sys_errno = problem
    timer_disarm(&worker.wheel, conn)
    health_failed(conn.app, conn.picked, conn.probing, worker.now_ns)
    conn.probing = False
    conn.dial_failure = reason
    if conn.attempts >= conn.app.connect_attempts:
        conn.reason = reason
        return STEP_CLOSE
    return STEP_REPICK


cdef step_t connected(conn_t *conn, worker_t *worker) noexcept nogil:
    conn.sys_errno = 0
    conn.upstream.flags &= ~<uint32_t>(LEG_READABLE | LEG_HUNG_UP)
    if conn.app.proxy != PROXY_NONE and not introduce(conn, worker):
        return failed(conn, worker, REASON_CONNECT_FAILED, errno)
    if conn.picked.tls_name == NULL:
        return ready(conn, worker)
    if conn.picked.tls == NULL:          # its files were never loaded: no reason to go on without TLS
        return failed(conn, worker, REASON_UPSTREAM_TLS, 0)
    conn.upstream.tls = worker.tls_engine.client_connection_new(
        worker.tls_pool, conn.picked.tls.config, &worker.io, conn.picked.tls_name.text,
        conn.picked.tls_name_is_address)
    if conn.upstream.tls == NULL:
        return ours(conn, worker, ENOMEM)
    early_watch(conn, worker)
    timer_arm(&worker.wheel, conn, conn.dialled_ns + conn.app.connect_timeout_ns)
    return negotiate(conn, worker, 0)


cdef bint introduce(conn_t *conn, worker_t *worker) noexcept nogil:
    """The PROXY header is the first thing an upstream gets, in front of TLS as well."""
    cdef size_t length = proxy_write(conn, worker, worker.scratch_plain)
    return length > 0 and leg_put(worker, &conn.upstream, worker.scratch_plain, length) == 0


cdef step_t ready(conn_t *conn, worker_t *worker) noexcept nogil:
    timer_disarm(&worker.wheel, conn)
    health_dialled(conn.app, conn.picked, worker.now_ns)
    conn.probing = False
    conn.tls_error = NULL                # of an attempt before this one
    conn.connected_ns = monotonic_ns()
    return STEP_NEXT


# ---- TLS -----------------------------------------------------------------------------------------

cdef step_t shake_hands(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef leg_t *leg = &conn.upstream
    cdef ssize_t got
    if leg.flags & LEG_WRITABLE and leg.out != NULL and leg_flush(worker, leg) != 0:
        return failed(conn, worker, REASON_UPSTREAM_TLS, errno)
    if not leg.flags & LEG_READABLE:
        return wait(conn, worker)
    leg.flags &= ~<uint32_t>LEG_READABLE
    got = recv(leg.fd, worker.scratch_in, BATCH_MIN, 0)
    if got < 0 and (errno == EAGAIN or errno == EINTR):
        return wait(conn, worker)
    if got <= 0:
        return failed(conn, worker, REASON_UPSTREAM_TLS, errno if got < 0 else 0)
    return negotiate(conn, worker, <size_t>got)


cdef step_t wait(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef uint32_t wanted = EPOLLIN if conn.upstream.out == NULL else EPOLLIN | EPOLLOUT
    cdef int problem = poller_want(worker.epoll_fd, conn, &conn.upstream, wanted)
    return STEP_WAIT if problem == 0 else ours(conn, worker, problem)


cdef step_t negotiate(conn_t *conn, worker_t *worker, size_t length) noexcept nogil:
    """One step of the handshake, on so many bytes of the upstream."""
    cdef tls_failure_t failure
    cdef tls_result_t result
    leg_io(worker, worker.scratch_in, length)
    worker.io.judge = NULL
    worker.io.verified = NULL
    result = worker.tls_engine.handshake(conn.upstream.tls, &worker.io, &failure)
    if worker.io.output_at > 0:
        if leg_put(worker, &conn.upstream, worker.io.output, worker.io.output_at) != 0:
            return failed(conn, worker, REASON_UPSTREAM_TLS, errno)
        worker.io.output_at = 0
    if result == TLS_FAILED:
        conn.tls_error = failure.name
        return failed(conn, worker, REASON_UPSTREAM_TLS, 0)
    if result != TLS_DONE:
        return wait(conn, worker)
    return greeted(conn, worker)


cdef step_t greeted(conn_t *conn, worker_t *worker) noexcept nogil:
    """The handshake is done; a server that speaks first may have said something with the end of it."""
    cdef size_t used = 0
    cdef int failure = 0
    cdef const char *problem = NULL
    if worker.io.input_at < worker.io.input_length:
        failure = leg_decrypt(worker, &conn.upstream, &used, &problem)
    if problem != NULL and failure == 0:
        conn.tls_error = problem
        return failed(conn, worker, REASON_UPSTREAM_TLS, 0)
    if failure == 0 and used > 0:
        conn.upstream.bytes += used
        failure = leg_put_payload(worker, &conn.client, worker.scratch_plain, used)
    return ours(conn, worker, failure) if failure == ENOMEM else ready(conn, worker)
