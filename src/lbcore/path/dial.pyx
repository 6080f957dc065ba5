"""Stage 7, dial: open the TCP connection to the picked upstream.

Nothing before this stage has sent a packet to any upstream. A failure of ours (no descriptor, no port,
no memory) is not held against the upstream and ends the connection; a failure of the upstream gives its
count back and picks another one, at most `connect_attempts` times.
"""

from libc.stdint cimport uint32_t

from lbcore.codes cimport (
    REASON_CONNECT_FAILED,
    STEP_CLOSE,
    STEP_NEXT,
    STEP_REPICK,
    STEP_WAIT,
)
from lbcore.parts.balance cimport balance_dialled, balance_failed
from lbcore.parts.early cimport early_watch
from lbcore.parts.headroom cimport headroom_is_lacking, headroom_ran_out
from lbcore.parts.poller cimport poller_want
from lbcore.parts.sockets cimport socket_error, socket_tune
from lbcore.parts.timers cimport timer_arm, timer_disarm
from lbcore.structs cimport LEG_HUNG_UP, LEG_READABLE, LEG_WRITABLE
from lbcore.sys.linux cimport (
    EADDRNOTAVAIL,
    EINPROGRESS,
    EPERM,
    EPOLLOUT,
    ETIMEDOUT,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    connect,
    errno,
    monotonic_ns,
    sockaddr,
    socket,
)


cdef step_t dial_step(conn_t *conn, worker_t *worker) noexcept nogil:
    if conn.upstream.fd < 0:
        return start(conn, worker)
    if conn.expired:
        conn.expired = False
        return failed(conn, worker, ETIMEDOUT)
    if not conn.upstream.flags & (LEG_WRITABLE | LEG_HUNG_UP):
        return STEP_WAIT
    # Only a socket that hung up has an error to tell (connect(2), epoll_ctl(2)).
    conn.sys_errno = socket_error(conn.upstream.fd) if conn.upstream.flags & LEG_HUNG_UP else 0
    if conn.sys_errno != 0:
        return failed(conn, worker, conn.sys_errno)
    return connected(conn, worker)


cdef step_t start(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef int problem
    conn.dialled_ns = worker.now_ns
    conn.upstream.fd = socket(conn.picked.address.sin6_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if conn.upstream.fd < 0:
        return ours(conn, worker, errno)
    problem = socket_tune(conn.upstream.fd, conn.app.keepalive_s)
    if problem != 0:
        return ours(conn, worker, problem)
    if connect(conn.upstream.fd, <const sockaddr *>&conn.picked.address, conn.picked.address_length) == 0:
        return connected(conn, worker)
    problem = errno
    if problem in (EADDRNOTAVAIL, EPERM) or headroom_is_lacking(problem):
        return ours(conn, worker, problem)
    if problem != EINPROGRESS:
        return failed(conn, worker, problem)
    problem = poller_want(worker.epoll_fd, conn, &conn.upstream, EPOLLOUT)
    if problem != 0:
        return ours(conn, worker, problem)
    early_watch(conn, worker)
    timer_arm(&worker.wheel, conn, worker.now_ns + conn.app.connect_timeout_ns)
    return STEP_WAIT


cdef step_t ours(conn_t *conn, worker_t *worker, int problem) noexcept nogil:
    if headroom_is_lacking(problem):
        headroom_ran_out(worker)         # or we would go on shaking hands with clients we cannot serve
    conn.sys_errno = problem
    conn.reason = REASON_CONNECT_FAILED
    return STEP_CLOSE


cdef step_t failed(conn_t *conn, worker_t *worker, int problem) noexcept nogil:
    conn.sys_errno = problem
    conn.failed = conn.attempts
    timer_disarm(&worker.wheel, conn)
    balance_failed(conn.app, conn.picked, worker.now_ns)
    if conn.attempts >= conn.app.connect_attempts:
        conn.reason = REASON_CONNECT_FAILED
        return STEP_CLOSE
    return STEP_REPICK


cdef step_t connected(conn_t *conn, worker_t *worker) noexcept nogil:
    timer_disarm(&worker.wheel, conn)
    balance_dialled(conn.picked)
    conn.sys_errno = 0
    conn.connected_ns = monotonic_ns()
    conn.upstream.flags &= ~<uint32_t>(LEG_READABLE | LEG_HUNG_UP)
    return STEP_NEXT
