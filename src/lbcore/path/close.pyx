"""Stage 9, close: the one place that closes, releases and accounts.

Everything a connection holds is given back here, whatever stage it ended in, and its one record is
written. Then the client's socket ends in the way its reason asks for (codes.pxd, reason_ending):

* clean: close_notify, FIN, and the socket lingers until the client has closed too, at most half a
  second. Closing at once with unread bytes in the socket would send a reset that destroys the
  close_notify on its way.
* reset: RST, for permanent refusals and aborts. Most clients take a bare FIN for a clean end. Where the TLS
  engine has sent an alert that says why, the alert takes its place, and lingers to be read.
* close: for peers that never spoke TLS; lingers too when there is an alert to be read. A node that became
  full during a handshake has TLS to say it with, and ends clean.

A socket that lingers counts as what it was, a stranger's or a client's, until it is closed.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from lbcore.codes cimport (
    ENDING_CLEAN,
    ENDING_CLOSE,
    ENDING_RESET,
    REASON_CLIENT_CLOSED,
    REASON_RATE,
    REASON_UPSTREAM_CLOSED,
    REASON_UPSTREAM_RESET,
    REASON_UPSTREAM_TLS,
    STEP_FREED,
    STEP_WAIT,
    ending_t,
    reason_ending,
)
from lbcore.parts.balance cimport balance_give
from lbcore.parts.cells cimport (
    app_unref,
    limiter_unref,
    listener_unref,
    name_ref,
    name_unref,
    tls_unref,
    upstream_unref,
    verdict_unref,
)
from lbcore.parts.der cimport der_serial
from lbcore.parts.early cimport early_drop
from lbcore.parts.health cimport health_gave_up, health_had_bytes, health_was_reset
from lbcore.parts.legs cimport leg_drop, leg_flush, leg_notify
from lbcore.parts.limiter cimport limiter_close, limiter_refund
from lbcore.parts.pacing cimport pacing_return
from lbcore.parts.parking cimport parking_leave
from lbcore.parts.pipes cimport pipe_give
from lbcore.parts.poller cimport poller_want
from lbcore.parts.rings cimport ring_push, ring_wake
from lbcore.parts.scopes cimport scopes_of
from lbcore.parts.slab cimport slab_give
from lbcore.parts.sockets cimport socket_will_reset
from lbcore.parts.strangers cimport known_leave, stranger_leave
from lbcore.parts.submissions cimport completions_push
from lbcore.parts.succession cimport succession_leave
from lbcore.parts.timers cimport timer_arm, timer_disarm
from lbcore.parts.waiting cimport waiting_leave
from lbcore.structs cimport (
    LEG_BROKEN,
    LEG_ENDED,
    LEG_FINISHED,
    LEG_NOTIFIED,
    LEG_READABLE,
    LEG_WRITABLE,
    LINGERING_MAX,
    SCRATCH_BYTES,
    leg_t,
    record_t,
    scopes_t,
)
from lbcore.sys.atomics cimport counter_add, gauge_give
from lbcore.sys.linux cimport (
    EAGAIN,
    EINTR,
    EPOLLIN,
    EPOLLOUT,
    SHUT_WR,
    close,
    errno,
    memcpy,
    memset,
    recv,
    shutdown,
    wall_ns,
)
from lbcore.tls.engine cimport tls_peer_t

cdef enum:
    LINGER_NS = 500000000
    EARLY_NS = 1000000000        # a reset within this time after the dial is the upstream's doing
    LEAF_MAX = 16384             # a longer certificate is not kept for the record


cdef step_t close_step(conn_t *conn, worker_t *worker) noexcept nogil:
    if conn.lingering:
        return linger_on(conn, worker)
    conn.expired = False
    timer_disarm(&worker.wheel, conn)
    parking_leave(worker, conn)
    release_counts(conn, worker)
    release_upstream(conn, worker)
    record(conn, worker)                 # whoever reads it finds the counts without this connection
    if must_linger(conn, worker):
        return linger_on(conn, worker)
    return release_client(conn, worker)


cdef void close_socket(leg_t *leg) noexcept nogil:
    """The number is forgotten before the socket is closed: a child forked in between may keep a copy, but
    never closes what has got the same number since."""
    cdef int fd = leg.fd
    leg.fd = -1
    if fd >= 0:
        close(fd)


cdef void close_upstream(conn_t *conn, worker_t *worker) noexcept nogil:
    close_socket(&conn.upstream)
    leg_drop(worker, &conn.upstream)
    if conn.upstream.tls != NULL:
        worker.tls_engine.connection_free(worker.tls_pool, conn.upstream.tls)
        conn.upstream.tls = NULL
    conn.upstream.flags = 0
    conn.upstream.watched = False
    conn.upstream.interest = 0
    if conn.picked != NULL:
        if conn.probing:
            health_gave_up(conn.picked, worker.now_ns)
            conn.probing = False
        balance_give(conn.picked)
        upstream_unref(conn.picked)
        conn.picked = NULL
        conn.leaves_ns = 0               # that was about this one, and not about the one that is tried next


# ---- what was counted ----------------------------------------------------------------------------

cdef void release_counts(conn_t *conn, worker_t *worker) noexcept nogil:
    counter_add(&conn.app.ended[<int>conn.reason], 1)
    counter_add(&conn.app.bytes_in, conn.client.bytes)
    counter_add(&conn.app.bytes_out, conn.upstream.bytes)
    gauge_give(&conn.app.open)
    release_limits(conn, worker)


cdef void release_limits(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef uint32_t i
    cdef scopes_t scopes
    if conn.delayed:
        conn.waited_ns = since(worker.now_ns, conn.asked_ns)
    waiting_leave(worker, conn)
    if conn.limited:
        conn.limited = False
        scopes_of(conn, &scopes)
        succession_leave(worker, conn)
        pacing_return(conn, &conn.client)
        pacing_return(conn, &conn.upstream)
        for i in range(scopes.count):
            counter_add(&scopes.items[i].bytes_in, conn.client.bytes)
            counter_add(&scopes.items[i].bytes_out, conn.upstream.bytes)
        # After a refusal by a later stage the open does not count, so the token comes back with the slot.
        if REASON_RATE <= conn.reason <= REASON_UPSTREAM_TLS:
            limiter_refund(&scopes, &conn.taken)
        limiter_close(&scopes)
    free(conn.taken.stamps)
    conn.taken.stamps = NULL


cdef void release_upstream(conn_t *conn, worker_t *worker) noexcept nogil:
    # After a normal end both sides have had their FIN; anything else must look like the abort it is.
    if conn.upstream.fd >= 0 and conn.reason not in (
        REASON_CLIENT_CLOSED, REASON_UPSTREAM_CLOSED, REASON_UPSTREAM_RESET
    ):
        socket_will_reset(conn.upstream.fd)
    if conn.picked != NULL and conn.forwarding:
        judge_upstream(conn, worker)
    early_drop(conn, worker)
    if conn.client.pipe != NULL:
        pipe_give(worker, conn.client.pipe)
    if conn.upstream.pipe != NULL:
        pipe_give(worker, conn.upstream.pipe)
    conn.client.pipe = NULL
    conn.upstream.pipe = NULL
    close_upstream(conn, worker)


cdef void judge_upstream(conn_t *conn, worker_t *worker) noexcept nogil:
    """Whoever accepts connections and resets them without a word is no better than who refuses them."""
    if conn.upstream.bytes > 0:
        health_had_bytes(conn.picked)
    elif conn.reason == REASON_UPSTREAM_RESET and worker.now_ns < conn.connected_ns + EARLY_NS:
        health_was_reset(conn.app, conn.picked, worker.now_ns)


# ---- the client's socket -------------------------------------------------------------------------

cdef bint must_linger(conn_t *conn, worker_t *worker) noexcept nogil:
    """Says the last words; true: the client must be given time to read them."""
    cdef ending_t ending = reason_ending(conn.reason)
    cdef leg_t *leg = &conn.client
    if ending == ENDING_CLOSE and conn.proven:
        ending = ENDING_CLEAN            # the node became full meanwhile: now there is TLS to say it with
    if ending == ENDING_RESET and not conn.alerted:
        socket_will_reset(leg.fd)
        return False
    if leg.flags & LEG_BROKEN or leg.flags & LEG_FINISHED and leg.flags & LEG_ENDED:
        return False
    if ending == ENDING_CLOSE and not conn.alerted:
        return False
    if ending == ENDING_CLEAN and leg.tls != NULL and not leg.flags & LEG_NOTIFIED:
        if leg_notify(worker, leg) != 0:
            socket_will_reset(leg.fd)    # a bare FIN would look like a clean end
            return False
    if worker.lingering >= LINGERING_MAX or leg.flags & LEG_BROKEN:
        return False
    conn.lingering = True
    worker.lingering += 1
    timer_arm(&worker.wheel, conn, worker.now_ns + LINGER_NS)
    leg.flags |= LEG_WRITABLE
    if not leg.watched:                  # else epoll says when there is something to read
        leg.flags |= LEG_READABLE
    return True


cdef step_t linger_on(conn_t *conn, worker_t *worker) noexcept nogil:
    """Until the client has ended too, or the time is up."""
    cdef leg_t *leg = &conn.client
    cdef ssize_t got
    if conn.expired:
        return release_client(conn, worker)
    if leg.flags & LEG_WRITABLE and leg_flush(worker, leg) != 0:
        return release_client(conn, worker)
    if leg.out == NULL and not leg.flags & LEG_FINISHED:
        shutdown(leg.fd, SHUT_WR)
        leg.flags |= LEG_FINISHED
    if leg.flags & LEG_READABLE:
        leg.flags &= ~<uint32_t>LEG_READABLE
        got = recv(leg.fd, worker.scratch_in, SCRATCH_BYTES, 0)
        if got == 0 or got < 0 and errno != EAGAIN and errno != EINTR:
            return release_client(conn, worker)
    if poller_want(worker.epoll_fd, conn, leg, EPOLLIN if leg.out == NULL else EPOLLIN | EPOLLOUT) != 0:
        return release_client(conn, worker)
    return STEP_WAIT


cdef step_t release_client(conn_t *conn, worker_t *worker) noexcept nogil:
    timer_disarm(&worker.wheel, conn)
    if conn.lingering:
        worker.lingering -= 1
        conn.lingering = False
    leg_drop(worker, &conn.client)
    if conn.client.tls != NULL:
        worker.tls_engine.connection_free(worker.tls_pool, conn.client.tls)
        conn.client.tls = NULL
    close_socket(&conn.client)
    verdict_unref(conn.verdict)
    limiter_unref(conn.limiter)
    name_unref(conn.client_name)
    name_unref(conn.upstream_name)
    tls_unref(conn.tls)
    app_unref(conn.app)
    listener_unref(conn.listener)
    stranger_leave(worker, conn)
    known_leave(worker, conn)
    gauge_give(&worker.load)
    slab_give(&worker.slab, conn)
    return STEP_FREED


# ---- the record ----------------------------------------------------------------------------------

cdef void record(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef record_t entry
    if conn.completion != NULL:
        fill(conn, worker, &conn.completion.record)
        completions_push(worker.node, conn.completion)
        conn.completion = NULL
    if worker.node.records_wanted:
        memset(&entry, 0, sizeof(entry))
        fill(conn, worker, &entry)
        if ring_push(&worker.records, &entry):
            ring_wake(&worker.records)
        else:
            record_drop(&entry)


cdef void fill(conn_t *conn, worker_t *worker, record_t *entry) noexcept nogil:
    entry.id = conn.id
    entry.app_id = conn.app.id
    entry.upstream = name_ref(conn.upstream_name)
    entry.wall_ns = wall_ns()
    entry.duration_ns = worker.now_ns - conn.accepted_ns if worker.now_ns > conn.accepted_ns else 0
    entry.handshake_ns = since(conn.handshaken_ns, conn.accepted_ns)
    entry.connect_ns = since(conn.connected_ns, conn.dialled_ns)
    entry.waited_ns = conn.waited_ns
    entry.would_deny = conn.would_deny
    entry.bytes_in = conn.client.bytes
    entry.bytes_out = conn.upstream.bytes
    entry.stage = conn.ended_at
    entry.reason = conn.reason
    entry.scope = conn.refused_by
    entry.sys_errno = conn.sys_errno
    entry.tls_error = conn.tls_error
    entry.attempts = conn.attempts
    entry.worker = <uint8_t>worker.number
    entry.forwarded = conn.forwarding
    entry.tls = conn.proven
    entry.source = conn.source
    if conn.client.tls != NULL:
        about_peer(conn, worker, entry)
    memcpy(entry.serial, conn.serial, sizeof(entry.serial))
    entry.serial_length = conn.serial_length
    entry.client = name_ref(conn.client_name)


cdef uint64_t since(uint64_t end_ns, uint64_t start_ns) noexcept nogil:
    """0 means not reached, so a stage that took no time took a nanosecond."""
    if end_ns == 0:
        return 0
    return end_ns - start_ns if end_ns > start_ns else 1


cdef void about_peer(conn_t *conn, worker_t *worker, record_t *entry) noexcept nogil:
    """The cipher of what was let in; the certificate of what was refused, `claimed` until proven."""
    cdef tls_peer_t peer
    if conn.proven:
        entry.cipher = worker.tls_engine.cipher(conn.client.tls)
    if conn.forwarding or not worker.tls_engine.peer(conn.client.tls, &peer):
        return
    if conn.serial_length == 0:
        der_serial(peer.leaf, peer.leaf_length, conn.serial, &conn.serial_length)
    entry.claimed = not conn.proven
    if peer.leaf_length > LEAF_MAX:
        return
    entry.leaf = <uint8_t *>malloc(peer.leaf_length)
    if entry.leaf != NULL:
        memcpy(entry.leaf, peer.leaf, peer.leaf_length)
        entry.leaf_length = <uint32_t>peer.leaf_length


cdef void record_drop(record_t *entry) noexcept nogil:
    name_unref(entry.client)
    name_unref(entry.upstream)
    free(entry.leaf)
