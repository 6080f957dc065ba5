"""Stage 8, forward: both directions until both have ended.

Backpressure: what a socket does not take waits in that leg's `out`, and while it waits nothing more is
read for it. So a connection holds at most one batch a direction, less when the other one holds much
(move.pyx), and a stalled side stops only its own direction. One batch a direction and wake-up, then the
next connection: epoll is level-triggered and comes back.

Ends: a proper end of one side (close_notify, or FIN on a plain leg) is passed on once everything before
it was delivered, and the other direction goes on. An abort is passed on as an abort: the bytes before it
are delivered and acknowledged, then both sides are reset, because a client must never take an aborted
stream for a complete one. `reason` is set as soon as that is decided, and from then on nothing is read
(`deliver_then_end`). Only a TCP reset of the client is passed on at once: whoever resets does not ask for
delivery, so what was taken for the upstream and not sent yet is dropped, though it counts in `bytes_in`.

How bytes move is in move.pyx; here is when.
"""

from libc.stdint cimport uint32_t, uint64_t

from lbcore.codes cimport (
    REASON_CLIENT_CLOSED,
    REASON_CLIENT_RESET,
    REASON_CLIENT_TRUNCATED,
    REASON_ERROR,
    REASON_HALF_CLOSE_TIMEOUT,
    REASON_IDLE,
    REASON_MAX_LIFETIME,
    REASON_NONE,
    REASON_UPSTREAM_CLOSED,
    REASON_UPSTREAM_RESET,
    REASON_UPSTREAM_TRUNCATED,
    STEP_CLOSE,
    STEP_WAIT,
    reason_t,
)
from lbcore.parts.cells cimport tls_unref, upstream_family
from lbcore.parts.early cimport early_deliver
from lbcore.parts.legs cimport leg_drop, leg_flush, leg_notify
from lbcore.parts.pacing cimport pacing_may_read, pacing_return
from lbcore.parts.poller cimport poller_want
from lbcore.parts.sockets cimport socket_error, socket_keep_alive, socket_unacknowledged
from lbcore.parts.timers cimport timer_arm
from lbcore.path.move cimport move_bytes, move_out_of_pipe, move_pending
from lbcore.structs cimport (
    LEG_BROKEN,
    LEG_CLEAN,
    LEG_ENDED,
    LEG_FINISHED,
    LEG_GARBLED,
    LEG_HUNG_UP,
    LEG_KEPT_ALIVE,
    LEG_NOTIFIED,
    LEG_READABLE,
    LEG_SHRUNK,
    LEG_WRITABLE,
    leg_t,
)
from lbcore.sys.atomics cimport counter_add
from lbcore.sys.linux cimport AF_UNIX, ENOMEM, EPOLLIN, EPOLLOUT, EPOLLRDHUP, SHUT_WR, shutdown

cdef enum:
    NEVER_NS = 0x7fffffffffffffff
    QUIET_NS = 60000000          # after this long without a byte, TLS buffers go back
    DELIVERY_NS = 1000000000     # how long an abort waits for the peer to take what came before it
    DELIVERY_LOOK_NS = 20000000


cdef step_t forward_step(conn_t *conn, worker_t *worker) noexcept nogil:
    if not conn.forwarding and begin(conn, worker) == STEP_CLOSE:
        return STEP_CLOSE
    if conn.reason == REASON_NONE:
        if conn.expired and look_at_clock(conn, worker) == STEP_CLOSE:
            return STEP_CLOSE
        if move(conn, worker) == STEP_CLOSE:
            return STEP_CLOSE
    if conn.reason != REASON_NONE:
        return deliver_then_end(conn, worker)
    return watch(conn, worker)


cdef step_t begin(conn_t *conn, worker_t *worker) noexcept nogil:
    """First time here: the upstream gets what the client has said so far."""
    conn.forwarding = True
    counter_add(&conn.app.forwarded, 1)
    conn.upstream.flags |= LEG_WRITABLE
    conn.client.flags |= LEG_WRITABLE
    conn.active_ns = worker.now_ns
    timer_arm(&worker.wheel, conn, look_ns(conn))
    conn.sys_errno = early_deliver(conn, worker)
    return end_now(conn, REASON_ERROR) if conn.sys_errno == ENOMEM else STEP_WAIT


# ---- bytes and ends ------------------------------------------------------------------------------

cdef step_t move(conn_t *conn, worker_t *worker) noexcept nogil:
    if move_pending(&conn.client, &conn.upstream) and conn.upstream.flags & LEG_WRITABLE:
        flush(conn, worker, &conn.client, &conn.upstream)
    if move_pending(&conn.upstream, &conn.client) and conn.client.flags & LEG_WRITABLE:
        flush(conn, worker, &conn.upstream, &conn.client)
    if conn.client.flags & LEG_READABLE:
        pump(conn, worker, &conn.client, &conn.upstream)
    if conn.upstream.flags & LEG_READABLE:
        pump(conn, worker, &conn.upstream, &conn.client)
    if conn.sys_errno == ENOMEM:
        return end_now(conn, REASON_ERROR)   # a byte that could not be kept is a byte lost
    if conn.client.flags & LEG_BROKEN:
        return end_now(conn, REASON_CLIENT_RESET)
    judge_ends(conn, worker)
    if conn.reason != REASON_NONE:
        return STEP_WAIT
    pass_on_end(conn, worker, &conn.client, &conn.upstream)
    pass_on_end(conn, worker, &conn.upstream, &conn.client)
    if conn.reason != REASON_NONE:
        return STEP_CLOSE
    if conn.client.flags & conn.upstream.flags & LEG_ENDED:
        if conn.client.flags & conn.upstream.flags & LEG_FINISHED:
            return end_now(conn, conn.first_end)
    return STEP_WAIT


cdef step_t end_now(conn_t *conn, reason_t reason) noexcept nogil:
    if conn.reason == REASON_NONE:
        conn.reason = reason
    return STEP_CLOSE


cdef void flush(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target) noexcept nogil:
    cdef uint32_t before = target.out.length if target.out != NULL else 0
    if source.pipe != NULL:
        source.flags |= LEG_READABLE     # splice empties the pipe and goes on reading
        target.flags &= ~<uint32_t>LEG_WRITABLE
        return
    conn.sys_errno = leg_flush(worker, target)
    if target.out == NULL or target.out.length < before:
        conn.active_ns = worker.now_ns


cdef void pump(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target) noexcept nogil:
    """One batch, if the other side can take it."""
    cdef int problem
    if source.flags & LEG_ENDED and source.pipe == NULL:
        source.flags &= ~<uint32_t>LEG_READABLE
        notice_reset(conn, source)
        return
    if target.out != NULL or target.flags & (LEG_BROKEN | LEG_FINISHED):
        source.flags &= ~<uint32_t>LEG_READABLE
        if source is &conn.client:       # an upstream's last bytes are still to be read
            notice_reset(conn, source)
        return
    if conn.paced and not move_pending(source, target):
        if not pacing_may_read(conn, source, worker.now_ns):
            source.flags &= ~<uint32_t>LEG_READABLE
            notice_reset(conn, source)
            return
    problem = move_bytes(conn, worker, source, target)
    if problem != 0:
        conn.sys_errno = problem
    elif source is &conn.client and source.flags & LEG_ENDED:
        # Its end and its reset may have come together: nothing will tell of the reset again.
        notice_reset(conn, source)


cdef void notice_reset(conn_t *conn, leg_t *leg) noexcept nogil:
    """Nothing is read from it now, but a reset must not wait for that."""
    cdef int problem
    if leg.flags & LEG_HUNG_UP:
        problem = socket_error(leg.fd)
        if problem != 0:
            conn.sys_errno = problem
            leg.flags |= LEG_BROKEN


cdef void judge_ends(conn_t *conn, worker_t *worker) noexcept nogil:
    """Sets `reason` when a side ended in a way that the other one must see as an abort."""
    cdef uint32_t client = conn.client.flags
    cdef uint32_t upstream = conn.upstream.flags
    if conn.first_end == REASON_NONE:
        if client & LEG_ENDED:
            conn.first_end = REASON_CLIENT_CLOSED
        elif upstream & LEG_ENDED:
            conn.first_end = REASON_UPSTREAM_CLOSED
        if conn.first_end != REASON_NONE:
            conn.active_ns = worker.now_ns   # the half-close timeout counts from here, not from the last byte
    if upstream & LEG_ENDED and upstream & (LEG_BROKEN | LEG_GARBLED):
        conn.reason = REASON_UPSTREAM_RESET
    elif upstream & LEG_ENDED and not upstream & LEG_CLEAN:
        conn.reason = REASON_UPSTREAM_TRUNCATED if conn.upstream.tls != NULL else REASON_UPSTREAM_RESET
    elif client & LEG_ENDED and not client & LEG_CLEAN:
        if client & LEG_GARBLED:
            conn.reason = REASON_CLIENT_RESET
        elif conn.app.truncated_is_eof or upstream & LEG_ENDED or client & LEG_NOTIFIED:
            conn.client.flags |= LEG_CLEAN   # nobody is misled: we announced our end, or the operator says so
        else:
            conn.reason = REASON_CLIENT_TRUNCATED
    if conn.reason != REASON_NONE:
        conn.active_ns = worker.now_ns
        conn.ends_ns = earlier(worker.now_ns + conn.app.half_close_timeout_ns, conn.ends_ns)


cdef void pass_on_end(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target) noexcept nogil:
    """The proper end of one side, once everything before it is in the other side's socket."""
    cdef int problem
    if not source.flags & LEG_ENDED or target.flags & (LEG_FINISHED | LEG_BROKEN):
        return
    if move_pending(source, target):
        return
    if target.tls != NULL and not target.flags & LEG_NOTIFIED:
        problem = leg_notify(worker, target)
        if problem != 0 and not target.flags & LEG_BROKEN:
            conn.sys_errno = problem
            conn.reason = REASON_ERROR   # without close_notify the FIN would say that something is missing
            return
        if target.out != NULL:
            return
    if not (target.flags & LEG_ENDED and source.flags & LEG_FINISHED):
        shutdown(target.fd, SHUT_WR)     # else all is done, and it is closed at once, which says so too
    target.flags |= LEG_FINISHED
    conn.active_ns = worker.now_ns
    timer_arm(&worker.wheel, conn, look_ns(conn))


# ---- waiting -------------------------------------------------------------------------------------

cdef uint32_t wanted_of(leg_t *source, leg_t *target) noexcept nogil:
    """What to watch on `source`: reading while it is not paused and the other side can take it, writing
    while it owes."""
    cdef uint32_t wanted = 0
    if not source.flags & LEG_ENDED and not move_pending(source, target) and source.ready_ns == 0:
        if not target.flags & (LEG_BROKEN | LEG_FINISHED):
            wanted = EPOLLIN | EPOLLRDHUP
    if move_pending(target, source):
        wanted |= EPOLLOUT
    return wanted


cdef step_t watch(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef int problem = poller_want(
        worker.epoll_fd, conn, &conn.client, wanted_of(&conn.client, &conn.upstream))
    if problem == 0:
        problem = poller_want(
            worker.epoll_fd, conn, &conn.upstream, wanted_of(&conn.upstream, &conn.client))
    if problem != 0:
        conn.sys_errno = problem
        return end_now(conn, REASON_ERROR)
    if conn.quiet and conn.active_ns == worker.now_ns:
        conn.quiet = False
        timer_arm(&worker.wheel, conn, look_ns(conn))
    elif conn.paced and look_ns(conn) < conn.deadline_ns:
        timer_arm(&worker.wheel, conn, look_ns(conn))
    return STEP_WAIT


cdef bint is_half_closed(conn_t *conn) noexcept nogil:
    return (conn.client.flags | conn.upstream.flags) & LEG_ENDED != 0


cdef uint64_t patience_ns(conn_t *conn) noexcept nogil:
    """How long no byte may move."""
    return conn.app.half_close_timeout_ns if is_half_closed(conn) else conn.app.idle_timeout_ns


cdef uint64_t earlier(uint64_t due_ns, uint64_t other_ns) noexcept nogil:
    """0 is never."""
    return other_ns if other_ns != 0 and other_ns < due_ns else due_ns


cdef uint64_t look_ns(conn_t *conn) noexcept nogil:
    """When to look at the clock: at the first of all that may be due."""
    cdef uint64_t due_ns = <uint64_t>NEVER_NS if is_paused(conn) else conn.active_ns + patience_ns(conn)
    if not conn.quiet:
        due_ns = earlier(due_ns, conn.active_ns + QUIET_NS)
    due_ns = earlier(due_ns, conn.client.ready_ns)
    due_ns = earlier(due_ns, conn.upstream.ready_ns)
    due_ns = earlier(due_ns, conn.leaves_ns)
    return earlier(due_ns, conn.ends_ns)


cdef step_t look_at_clock(conn_t *conn, worker_t *worker) noexcept nogil:
    """The timer is not moved with every byte: it fires, looks when the last byte moved, and waits on."""
    conn.expired = False
    if conn.ends_ns != 0 and conn.ends_ns <= worker.now_ns:
        return end_now(conn, REASON_MAX_LIFETIME)
    if conn.leaves_ns != 0 and conn.leaves_ns <= worker.now_ns:
        return end_now(conn, conn.leaves_for)
    keep_alive(conn)
    resume(conn, worker, &conn.client)
    resume(conn, worker, &conn.upstream)
    if conn.active_ns + patience_ns(conn) <= worker.now_ns and not is_paused(conn):
        return end_now(conn, REASON_HALF_CLOSE_TIMEOUT if is_half_closed(conn) else REASON_IDLE)
    if not conn.quiet and conn.active_ns + QUIET_NS <= worker.now_ns:
        if go_quiet(conn, worker) == STEP_CLOSE:
            return STEP_CLOSE
    timer_arm(&worker.wheel, conn, look_ns(conn))
    return STEP_WAIT


cdef void keep_alive(conn_t *conn) noexcept nogil:
    """A peer can vanish unnoticed only while nothing is sent, so this waits for the first look at the clock:
    many connections are over by then, and it is four system calls."""
    if conn.upstream.flags & LEG_KEPT_ALIVE == 0:
        conn.upstream.flags |= LEG_KEPT_ALIVE
        if upstream_family(conn.picked) != AF_UNIX:
            socket_keep_alive(conn.upstream.fd, conn.app.keepalive_s)


cdef bint is_paused(conn_t *conn) noexcept nogil:
    """It is silent because a limit says so, which is not idle."""
    return conn.client.ready_ns != 0 or conn.upstream.ready_ns != 0


cdef void resume(conn_t *conn, worker_t *worker, leg_t *leg) noexcept nogil:
    """A paused leg whose lease is due is read again."""
    if leg.ready_ns != 0 and leg.ready_ns <= worker.now_ns:
        leg.ready_ns = 0
        leg.flags |= LEG_READABLE
        conn.active_ns = worker.now_ns


cdef step_t go_quiet(conn_t *conn, worker_t *worker) noexcept nogil:
    """Most connections are idle most of the time: their TLS state shrinks to a third. And a peer that
    stalls keeps no pipe from others."""
    conn.quiet = True
    if conn.client.ready_ns == 0:
        pacing_return(conn, &conn.client)
    if conn.upstream.ready_ns == 0:
        pacing_return(conn, &conn.upstream)
    conn.sys_errno = move_out_of_pipe(worker, &conn.client, &conn.upstream)
    if conn.sys_errno == 0:
        conn.sys_errno = move_out_of_pipe(worker, &conn.upstream, &conn.client)
    if conn.sys_errno != 0:
        return end_now(conn, REASON_ERROR)
    shrink(worker, &conn.upstream)
    shrink(worker, &conn.client)
    if conn.client.flags & LEG_SHRUNK:
        tls_unref(conn.tls)
        conn.tls = NULL
    return STEP_WAIT


cdef void shrink(worker_t *worker, leg_t *leg) noexcept nogil:
    if leg.tls == NULL or leg.barren > 0:
        return                           # s2n would lose a key update of which the first bytes are here
    if leg.flags & LEG_SHRUNK:
        worker.tls_engine.release_buffers(leg.tls)
    elif worker.tls_engine.go_idle(leg.tls):
        leg.flags |= LEG_SHRUNK


# ---- aborts --------------------------------------------------------------------------------------

cdef step_t deliver_then_end(conn_t *conn, worker_t *worker) noexcept nogil:
    """An abort of one side: the other one gets what came before it, then the reset.

    A reset destroys what the kernel has not sent, so it waits until the peer has acknowledged
    everything, for a second after the last progress, or as long as a half-closed connection may stall
    while bytes still wait here. What the peer acknowledges is progress: a slow reader may need long for
    what is in the kernel. All of it has an end in `ends_ns`, or whoever takes a byte now and then would stay.
    """
    cdef bint from_client = conn.reason not in (REASON_UPSTREAM_RESET, REASON_UPSTREAM_TRUNCATED)
    cdef leg_t *source = &conn.client if from_client else &conn.upstream
    cdef leg_t *target = &conn.upstream if from_client else &conn.client
    cdef uint64_t limit_ns = DELIVERY_NS
    cdef uint32_t owed
    conn.expired = False
    if move_pending(source, target) and target.flags & LEG_WRITABLE:
        flush(conn, worker, source, target)
        if source.pipe != NULL:
            move_bytes(conn, worker, source, target)
    if target.flags & LEG_BROKEN:
        return STEP_CLOSE
    if not move_pending(source, target):
        owed = <uint32_t>socket_unacknowledged(target.fd)
        if owed == 0:
            return STEP_CLOSE
        if owed < target.owed:
            conn.active_ns = worker.now_ns
        target.owed = owed
    elif conn.app.half_close_timeout_ns > limit_ns:
        limit_ns = conn.app.half_close_timeout_ns
    if conn.active_ns + limit_ns <= worker.now_ns or conn.ends_ns <= worker.now_ns:
        return STEP_CLOSE
    leg_drop(worker, source)
    poller_want(worker.epoll_fd, conn, source, 0)
    poller_want(worker.epoll_fd, conn, target, EPOLLOUT if move_pending(source, target) else 0)
    timer_arm(&worker.wheel, conn, worker.now_ns + DELIVERY_LOOK_NS)
    return STEP_WAIT
