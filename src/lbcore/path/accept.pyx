"""Stage 1, accept: take sockets from the shared listening socket.

One listening socket per application, in every worker's epoll set with EPOLLEXCLUSIVE: no connection is
lost with a worker, and the descriptor can be inherited or handed on. The kernel wakes the same worker
again and again, so the balance is ours: before anything is built for a socket, it goes to the worker
with the fewest connections if that one has noticeably fewer.

Out of descriptors or memory: the worker stops watching its listeners for a moment instead of spinning
on a queue it cannot empty.
"""

from libc.stdint cimport int64_t, uint32_t

from lbcore.codes cimport REASON_NODE_FULL, STAGE_ACCEPT, STEP_CLOSE, STEP_NEXT
from lbcore.parts.cells cimport app_ref, listener_ref, listener_unref, tls_ref
from lbcore.parts.headroom cimport headroom_is_lacking, headroom_is_short, headroom_ran_out
from lbcore.parts.networks cimport networks_hold
from lbcore.parts.rings cimport ring_push, ring_wake
from lbcore.parts.slab cimport slab_take
from lbcore.parts.strangers cimport known_enter, node_is_full, stranger_enter
from lbcore.structs cimport MESSAGE_SOCKET, message_t
from lbcore.sys.atomics cimport (
    counter_add,
    counter_next,
    gauge_give,
    gauge_read,
    gauge_take,
)
from lbcore.sys.linux cimport (
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    EAGAIN,
    accept4,
    close,
    errno,
    sockaddr,
    socklen_t,
)

cdef enum:
    HAND_OVER_LEAD = 2           # connections more than the least loaded worker has


cdef conn_t *accept_next(listener_t *listener, worker_t *worker, bint *out_more) noexcept nogil:
    cdef sockaddr_in6 source
    cdef socklen_t length = sizeof(source)
    cdef worker_t *target
    cdef int fd
    if headroom_is_short(worker):
        out_more[0] = False
        return NULL
    fd = accept4(listener.fd, <sockaddr *>&source, &length, SOCK_NONBLOCK | SOCK_CLOEXEC)
    out_more[0] = True
    if fd < 0:
        if errno == EAGAIN:
            out_more[0] = False
        elif headroom_is_lacking(errno):
            headroom_ran_out(worker)
            out_more[0] = False
        return NULL                      # else that client is gone already: ECONNABORTED and its kin
    target = least_loaded(worker)
    gauge_take(&target.load)
    if target is not worker:
        if hand_over(target, listener, fd, &source):
            counter_add(&worker.handed_over, 1)
            return NULL
        gauge_give(&target.load)         # its inbox is full: it is busier than its count says
        gauge_take(&worker.load)
    return accept_adopt(listener, worker, fd, &source)


cdef worker_t *least_loaded(worker_t *worker) noexcept nogil:
    cdef worker_t *best = worker
    cdef int64_t lowest = gauge_read(&worker.load) - HAND_OVER_LEAD
    cdef int64_t load
    cdef uint32_t i
    for i in range(worker.node.worker_count):
        load = gauge_read(&worker.node.workers[i].load)
        if load < lowest:
            lowest = load
            best = worker.node.workers[i]
    return best


cdef bint hand_over(worker_t *target, listener_t *listener, int fd,
                    const sockaddr_in6 *source) noexcept nogil:
    cdef message_t message
    message.kind = MESSAGE_SOCKET
    message.fd = fd
    message.cell = listener_ref(listener)
    message.source = source[0]
    if not ring_push(&target.inbox, &message):
        listener_unref(listener)
        return False
    ring_wake(&target.inbox)
    return True


cdef conn_t *accept_adopt(listener_t *listener, worker_t *worker, int fd,
                          const sockaddr_in6 *source) noexcept nogil:
    cdef conn_t *conn = slab_take(&worker.slab)
    if conn == NULL:
        counter_add(&worker.node.accept_errors, 1)
        gauge_give(&worker.load)
        close(fd)
        return NULL
    counter_add(&worker.accepted, 1)
    counter_add(&listener.app.accepted, 1)
    gauge_take(&listener.app.open)
    conn.stage = STAGE_ACCEPT
    conn.id = counter_next(&worker.node.next_id) + 1
    conn.client.fd = fd
    conn.source = source[0]
    conn.listener = listener_ref(listener)
    conn.app = app_ref(listener.app)
    conn.tls = tls_ref(listener.tls)
    conn.fronted = listener.fronts != NULL and networks_hold(listener.fronts, source)
    conn.accepted_ns = worker.now_ns
    conn.active_ns = worker.now_ns
    return conn


cdef step_t accept_step(conn_t *conn, worker_t *worker) noexcept nogil:
    if conn.tls == NULL and not conn.fronted:
        return STEP_NEXT if known_enter(worker, conn) else STEP_CLOSE
    if node_is_full(worker):             # said now, before it costs a handshake
        conn.reason = REASON_NODE_FULL
        return STEP_CLOSE
    stranger_enter(worker, conn)
    return STEP_NEXT
