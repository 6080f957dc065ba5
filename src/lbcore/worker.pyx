"""A worker's life: wait for events, run stages until each connection waits or ends, look at the clock.

`run_stage` is the data path from top to bottom. No stage calls another one: a stage does its part and
answers NEXT, WAIT, REPICK or CLOSE, and all branching is here.

A worker is a thread of its own without a Python thread state. It shares nothing with other threads but
atomics in cells, its inbox and its rings; it blocks all signals, and so SIGPIPE too, which splice has no
flag against.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free

from lbcore.codes cimport (
    REASON_APP_NOT_ALLOWED,
    REASON_CONNECT_FAILED,
    REASON_DRAINED,
    REASON_NODE_FULL,
    REASON_NONE,
    REASON_NO_CERTIFICATE,
    REASON_REPLACED,
    REASON_REVOKED_WHILE_OPEN,
    REASON_UNAUTHENTICATED_FULL,
    REASON_UNKNOWN_SERIAL,
    REASON_UPSTREAM_TLS,
    REASON_WRONG_PURPOSE,
    STAGE_ACCEPT,
    STAGE_AUTHENTICATE,
    STAGE_AUTHORIZE,
    STAGE_CLOSE,
    STAGE_DIAL,
    STAGE_FORWARD,
    STAGE_HANDSHAKE,
    STAGE_LIMIT,
    STAGE_PICK,
    STEP_CLOSE,
    STEP_NEXT,
    STEP_REPICK,
    reason_t,
    stage_t,
    step_t,
)
from lbcore.parts.cells cimport (
    limiter_unref,
    lines_new,
    listener_unref,
    name_ref,
    snapshot_ref,
    snapshot_unref,
    verdict_ref,
    verdict_unref,
)
from lbcore.parts.chunks cimport chunk_pool_fini
from lbcore.parts.early cimport early_read
from lbcore.parts.headroom cimport headroom_ran_out
from lbcore.parts.orders cimport order_done, order_unref
from lbcore.parts.pipes cimport pipes_fini
from lbcore.parts.policy cimport policy_judge
from lbcore.parts.poller cimport (
    EVENT_CLIENT,
    EVENT_INBOX,
    EVENT_LISTENER,
    EVENT_UPSTREAM,
    event_kind_t,
    event_tag,
    poller_add,
    poller_remove,
    tag_generation,
    tag_index,
    tag_kind,
)
from lbcore.parts.rings cimport ring_awake, ring_fini, ring_init, ring_may_sleep, ring_pop
from lbcore.parts.slab cimport slab_find, slab_fini, slab_init, slab_slot
from lbcore.parts.submissions cimport completions_push, submission_free
from lbcore.parts.succession cimport succession_oldest
from lbcore.parts.timers cimport timer_expired, timer_wait_ms, wheel_init
from lbcore.parts.verdicts cimport verdicts_clear, verdicts_insert
from lbcore.parts.waiting cimport sweep_begin, sweep_next, sweep_refused, sweep_t
from lbcore.path.accept cimport ACCEPT_BATCH, accept_adopt, accept_next, accept_step
from lbcore.path.authenticate cimport authenticate_step
from lbcore.path.authorize cimport authorize_matches, authorize_step
from lbcore.path.close cimport close_step, close_upstream
from lbcore.path.dial cimport dial_step
from lbcore.path.forward cimport forward_step
from lbcore.path.handshake cimport handshake_step
from lbcore.path.limit cimport limit_step
from lbcore.path.pick cimport pick_step
from lbcore.structs cimport (
    FRAGMENT_MIN,
    LEG_HUNG_UP,
    LEG_READABLE,
    LEG_WRITABLE,
    MESSAGE_REPLACE,
    MESSAGE_SOCKET,
    MESSAGE_SUBMISSION,
    MESSAGE_VERDICT,
    ORDER_ABORT,
    ORDER_ADOPT,
    ORDER_LEAVE,
    ORDER_LIST,
    ORDER_STOP,
    SCRATCH_BYTES,
    SEALING_MAX,
    SEALING_SHARE,
    conn_info_t,
    conn_t,
    leg_t,
    limiter_t,
    listener_t,
    message_t,
    name_t,
    order_t,
    record_t,
    submission_t,
    verdict_t,
)
from lbcore.sys.atomics cimport counter_add, gauge_read, word_write
from lbcore.sys cimport linux
from lbcore.sys.linux cimport (
    EMSGSIZE,
    EPOLL_CLOEXEC,
    EPOLLERR,
    EPOLLEXCLUSIVE,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    SIG_SETMASK,
    aligned_alloc,
    close,
    epoll_create1,
    epoll_event,
    epoll_wait,
    getsockname,
    memcpy,
    monotonic_ns,
    pthread_create,
    pthread_setname_np,
    pthread_sigmask,
    sigfillset,
    sigset_t,
    sockaddr,
    socklen_t,
    wall_ns,
)

cdef enum:
    EVENTS_MAX = 256
    INBOX_SLOTS = 4096
    QUEUE_MAX = 65536            # taken from a listener that goes away, until its queue is empty
    RECORD_SLOTS = 4096
    SLEEP_MAX_MS = 1000


# ---- the data path -------------------------------------------------------------------------------

cdef step_t run_stage(conn_t *conn, worker_t *worker) noexcept nogil:
    if conn.stage == STAGE_ACCEPT:
        return accept_step(conn, worker)
    elif conn.stage == STAGE_HANDSHAKE:
        return handshake_step(conn, worker)
    elif conn.stage == STAGE_AUTHENTICATE:
        return authenticate_step(conn, worker)
    elif conn.stage == STAGE_AUTHORIZE:
        return authorize_step(conn, worker)
    elif conn.stage == STAGE_LIMIT:
        return limit_step(conn, worker)
    elif conn.stage == STAGE_PICK:
        return pick_step(conn, worker)
    elif conn.stage == STAGE_DIAL:
        return dial_step(conn, worker)
    elif conn.stage == STAGE_FORWARD:
        return forward_step(conn, worker)
    return close_step(conn, worker)


cdef void run(conn_t *conn, worker_t *worker) noexcept nogil:
    """Runs stages until the connection waits or is gone; `conn` may not be used afterwards."""
    cdef step_t step
    while True:
        step = run_stage(conn, worker)
        if step == STEP_NEXT:
            conn.stage = <stage_t>(conn.stage + 1)
        elif step == STEP_REPICK:
            close_upstream(conn, worker)
            conn.stage = STAGE_PICK
        elif step == STEP_CLOSE:
            conn.ended_at = ended_at(conn)
            conn.stage = STAGE_CLOSE
        else:
            return


cdef stage_t ended_at(conn_t *conn) noexcept nogil:
    """The stage that the reason belongs to, which is not always the one that noticed."""
    if conn.stage == STAGE_HANDSHAKE and REASON_NO_CERTIFICATE <= conn.reason <= REASON_WRONG_PURPOSE:
        return STAGE_AUTHENTICATE        # the library judges certificates while it shakes hands
    if conn.stage == STAGE_HANDSHAKE and REASON_UNKNOWN_SERIAL <= conn.reason <= REASON_APP_NOT_ALLOWED:
        return STAGE_AUTHORIZE           # and some ask the native policy, to put it into an alert
    if conn.reason in (REASON_NODE_FULL, REASON_UNAUTHENTICATED_FULL):
        return STAGE_ACCEPT              # which ends when a client is known and counts as one of the node's
    if conn.stage == STAGE_PICK and conn.reason in (REASON_CONNECT_FAILED, REASON_UPSTREAM_TLS):
        return STAGE_DIAL                # nobody is left to try: the last dial ended it
    return conn.stage


cdef void end(conn_t *conn, worker_t *worker, reason_t reason) noexcept nogil:
    """Ends a connection from outside its stage; one that lingers is past that."""
    if conn.stage == STAGE_CLOSE:
        return
    conn.reason = reason
    conn.ended_at = ended_at(conn)
    conn.stage = STAGE_CLOSE
    run(conn, worker)


# ---- events --------------------------------------------------------------------------------------

cdef void on_leg(conn_t *conn, worker_t *worker, leg_t *leg, uint32_t events) noexcept nogil:
    if events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR):
        leg.flags |= LEG_READABLE
    if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
        leg.flags |= LEG_WRITABLE
    if events & (EPOLLHUP | EPOLLERR):
        leg.flags |= LEG_HUNG_UP
    if leg is &conn.client and STAGE_AUTHENTICATE <= conn.stage <= STAGE_DIAL:
        # Waiting for a verdict or a dial: the client's bytes are held, its going away is noticed.
        if early_read(conn, worker) == STEP_CLOSE:
            end(conn, worker, conn.reason)
        return
    run(conn, worker)


cdef void on_timer(conn_t *conn, worker_t *worker) noexcept nogil:
    conn.expired = True
    run(conn, worker)


cdef void on_listener(listener_t *listener, worker_t *worker) noexcept nogil:
    accept_some(listener, worker, ACCEPT_BATCH)


cdef void accept_some(listener_t *listener, worker_t *worker, int count) noexcept nogil:
    cdef int _i
    cdef bint more = True
    cdef conn_t *conn
    for _i in range(count):
        conn = accept_next(listener, worker, &more)
        if conn != NULL:
            run(conn, worker)
        if not more:
            return


cdef void on_message(message_t *message, worker_t *worker) noexcept nogil:
    cdef conn_t *conn
    cdef listener_t *listener
    if message.kind == MESSAGE_SOCKET:
        listener = <listener_t *>message.cell
        conn = accept_adopt(listener, worker, message.fd, &message.source)
        if conn != NULL:
            run(conn, worker)
        listener_unref(listener)
    elif message.kind == MESSAGE_SUBMISSION:
        on_submission(message, <submission_t *>message.cell, worker)
    elif message.kind == MESSAGE_VERDICT:
        on_verdict(<verdict_t *>message.cell, worker)
    elif message.kind == MESSAGE_REPLACE:
        replace_oldest(<limiter_t *>message.cell, worker)
    else:
        carry_out(<order_t *>message.cell, worker)


cdef void on_submission(message_t *message, submission_t *submission, worker_t *worker) noexcept nogil:
    """A socket that Python accepted goes the way of all others, with what came along."""
    cdef conn_t *conn = accept_adopt(submission.door, worker, message.fd, &message.source)
    if conn != NULL:
        conn.id = submission.id
        conn.limiter = submission.limiter
        conn.client_name = submission.client
        conn.completion = submission.completion
        submission.limiter = NULL
        submission.client = NULL
        submission.completion = NULL
        run(conn, worker)
    elif submission.completion != NULL:
        submission_lost(submission, worker)
    submission_free(submission)


cdef void submission_lost(submission_t *submission, worker_t *worker) noexcept nogil:
    """There was no memory for a connection; whoever waits for its end is told."""
    cdef record_t *record = &submission.completion.record
    record.id = submission.id
    record.app_id = submission.door.app.id
    record.wall_ns = wall_ns()
    record.worker = <uint8_t>worker.number
    record.stage = STAGE_ACCEPT
    record.reason = REASON_NODE_FULL
    completions_push(worker.node, submission.completion)
    submission.completion = NULL


cdef void on_verdict(verdict_t *verdict, worker_t *worker) noexcept nogil:
    """Wakes who waits for this answer, lets who found the question ring full ask again, remembers it."""
    cdef conn_t *conn = worker.parked
    cdef conn_t *following
    while conn != NULL:
        following = conn.parked_next
        if authorize_matches(conn, worker, verdict):
            conn.verdict = verdict_ref(verdict)
            run(conn, worker)
        elif not conn.asked:
            run(conn, worker)
        conn = following
    if verdict.expires_ns == 0 or verdict.expires_ns > worker.now_ns:
        verdicts_insert(worker, verdict)
    else:
        verdict_unref(verdict)


cdef void replace_oldest(limiter_t *limiter, worker_t *worker) noexcept nogil:
    """A newcomer waits for a slot; if none came free since, the oldest connection here gives its own."""
    cdef conn_t *conn = succession_oldest(worker, limiter)
    if conn != NULL and gauge_read(&limiter.open) >= limiter.open_max:
        end(conn, worker, REASON_REPLACED)
    limiter_unref(limiter)


cdef void try_delayed(worker_t *worker) noexcept nogil:
    """Lets through whom the limits allow by now, in the order of their rounds."""
    cdef sweep_t sweep
    cdef conn_t *conn
    sweep_begin(worker, &sweep)
    while True:
        conn = sweep_next(&sweep)
        if conn == NULL:
            return
        run(conn, worker)
        sweep_refused(&sweep, conn)


# ---- orders of the engine ------------------------------------------------------------------------

cdef void carry_out(order_t *order, worker_t *worker) noexcept nogil:
    if order.kind == ORDER_ADOPT:
        adopt(worker, order.snapshot)
    elif order.kind == ORDER_LIST:
        list_connections(worker, order)
    elif order.kind == ORDER_ABORT:
        abort_all(worker, order.reason)
    elif order.kind == ORDER_LEAVE:
        leave_upstream(worker, order)
    elif order.kind == ORDER_STOP:
        worker.stopping = True
    order_done(order)


cdef bint has_listener(snapshot_t *snapshot, listener_t *listener) noexcept nogil:
    cdef uint32_t i
    for i in range(snapshot.listener_count):
        if snapshot.listeners[i] is listener:
            return True
    return False


cdef void adopt(worker_t *worker, snapshot_t *snapshot) noexcept nogil:
    """Swaps the configuration: listeners that are new are watched, gone ones no more, and every
    connection is judged again. Cells stay, so counts and buckets do."""
    cdef snapshot_t *old = worker.snapshot
    cdef uint32_t i
    watch_listeners(worker, False)
    for i in range(old.listener_count):
        if not has_listener(snapshot, old.listeners[i]):
            # The kernel has promised a connection to whoever is in its queue.
            accept_some(old.listeners[i], worker, QUEUE_MAX)
    worker.snapshot = snapshot_ref(snapshot)
    if not worker.accept_paused:
        watch_listeners(worker, True)
    if snapshot.epoch != old.epoch:
        verdicts_clear(worker)
        judge_all(worker)
    snapshot_unref(old)


cdef void watch_listeners(worker_t *worker, bint watched) noexcept nogil:
    # Interest of an EPOLLEXCLUSIVE descriptor cannot be modified, only removed and added.
    cdef uint32_t i
    cdef listener_t *listener
    for i in range(worker.snapshot.listener_count):
        listener = worker.snapshot.listeners[i]
        if not watched:
            poller_remove(worker.epoll_fd, listener.fd)
        elif poller_add(worker.epoll_fd, listener.fd, EPOLLIN | EPOLLEXCLUSIVE,
                        event_tag(EVENT_LISTENER, i, <uint32_t>listener.id)) != 0:
            # No memory, or no more watches for this user: a worker that let it be would stay deaf.
            headroom_ran_out(worker)
            pause_accepting(worker, worker.accept_paused_until_ns)
            return


cdef void pause_accepting(worker_t *worker, uint64_t until_ns) noexcept nogil:
    worker.accept_paused = True
    worker.accept_paused_until_ns = until_ns
    watch_listeners(worker, False)


cdef void judge_all(worker_t *worker) noexcept nogil:
    """Under a new policy: who waits asks again, who is open and lost access is closed."""
    cdef uint32_t i
    cdef conn_t *conn
    cdef name_t *client
    for i in range(worker.slab.next_index):
        conn = slab_slot(&worker.slab, i)
        if not conn.in_use or conn.doomed or conn.stage < STAGE_AUTHORIZE or conn.stage == STAGE_CLOSE:
            continue
        if conn.parked:
            conn.asked = False
            run(conn, worker)
        elif conn.listener.uses_policy and worker.snapshot.policy != NULL:
            if policy_judge(worker.snapshot.policy, conn.serial, conn.serial_length, conn.app.name,
                            &client) != REASON_NONE:
                end(conn, worker, REASON_REVOKED_WHILE_OPEN)


cdef void abort_all(worker_t *worker, reason_t reason) noexcept nogil:
    cdef uint32_t i
    cdef conn_t *conn
    for i in range(worker.slab.next_index):
        conn = slab_slot(&worker.slab, i)
        if conn.in_use and not conn.doomed:
            if conn.stage == STAGE_CLOSE:
                on_timer(conn, worker)       # lingering: no more patience
            else:
                end(conn, worker, reason)


cdef void leave_upstream(worker_t *worker, order_t *order) noexcept nogil:
    """By then, or at once; or they may stay after all."""
    cdef uint32_t i
    cdef conn_t *conn
    for i in range(worker.slab.next_index):
        conn = slab_slot(&worker.slab, i)
        if not conn.in_use or conn.doomed or conn.picked == NULL or conn.picked.id != order.upstream_id:
            continue
        conn.leaves_ns = order.deadline_ns
        conn.leaves_for = order.reason
        if conn.stage == STAGE_FORWARD and conn.reason == REASON_NONE and conn.leaves_ns != 0:
            # Looks at the clock now, and then when the first of its deadlines is due.
            on_timer(conn, worker)


cdef void list_connections(worker_t *worker, order_t *order) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t count = 0
    cdef conn_t *conn
    cdef conn_info_t *infos = <conn_info_t *>calloc(worker.slab.in_use + 1, sizeof(conn_info_t))
    if infos == NULL:
        return
    for i in range(worker.slab.next_index):
        conn = slab_slot(&worker.slab, i)
        if conn.in_use and conn.stage != STAGE_CLOSE:
            describe(conn, worker, &infos[count])
            count += 1
    order.infos[worker.number] = infos
    order.info_counts[worker.number] = count


cdef void describe(conn_t *conn, worker_t *worker, conn_info_t *info) noexcept nogil:
    cdef socklen_t length = sizeof(info.upstream_local)
    info.id = conn.id
    info.app_id = conn.app.id
    info.upstream = name_ref(conn.picked.name) if conn.picked != NULL else NULL
    info.stage = conn.stage
    info.client = name_ref(conn.client_name)
    memcpy(info.serial, conn.serial, sizeof(info.serial))
    info.serial_length = conn.serial_length
    info.source = conn.source
    info.age_ns = worker.now_ns - conn.accepted_ns
    info.bytes_in = conn.client.bytes
    info.bytes_out = conn.upstream.bytes
    if conn.upstream.fd >= 0:
        getsockname(conn.upstream.fd, <sockaddr *>&info.upstream_local, &length)


# ---- the loop ------------------------------------------------------------------------------------

cdef void *worker_main(void *argument) noexcept nogil:
    cdef worker_t *worker = <worker_t *>argument
    cdef epoll_event events[256]
    cdef int count
    cdef int i
    watch_listeners(worker, True)
    while not worker.stopping:
        count = epoll_wait(worker.epoll_fd, events, EVENTS_MAX, sleep_ms(worker))
        worker.now_ns = monotonic_ns()
        word_write(&worker.stamp_ns, worker.now_ns)
        word_write(&worker.inbox.sleeping, 0)
        counter_add(&worker.wakeups, 1)
        for i in range(count):
            dispatch(worker, events[i].data.u64, events[i].events)
        close_doomed(worker)
        run_timers(worker)
        if worker.delayed != NULL and worker.delayed_due_ns <= worker.now_ns:
            try_delayed(worker)
        read_inbox(worker)
    abort_all(worker, REASON_DRAINED)
    watch_listeners(worker, False)
    return NULL


cdef int sleep_ms(worker_t *worker) noexcept nogil:
    """Until the next deadline; a second at most, so that `stamp_ns` tells an idle worker from a dead one."""
    cdef int timers_ms
    cdef int pause_ms = SLEEP_MAX_MS
    if not ring_may_sleep(&worker.inbox):
        return 0
    worker.now_ns = monotonic_ns()
    timers_ms = timer_wait_ms(&worker.wheel, worker.now_ns)
    if worker.accept_paused:
        pause_ms = until_ms(worker, worker.accept_paused_until_ns)
    if worker.delayed != NULL:
        pause_ms = earlier_ms(pause_ms, until_ms(worker, worker.delayed_due_ns))
    return pause_ms if timers_ms < 0 else earlier_ms(pause_ms, timers_ms)


cdef int until_ms(worker_t *worker, uint64_t due_ns) noexcept nogil:
    """Rounded up, or epoll would return too early again and again."""
    return <int>((due_ns - worker.now_ns + 999999) // 1000000) if due_ns > worker.now_ns else 0


cdef int earlier_ms(int one, int other) noexcept nogil:
    return one if one < other else other


cdef void dispatch(worker_t *worker, uint64_t tag, uint32_t events) noexcept nogil:
    cdef event_kind_t kind = tag_kind(tag)
    cdef uint32_t index = tag_index(tag)
    cdef conn_t *conn
    if kind == EVENT_CLIENT or kind == EVENT_UPSTREAM:
        conn = slab_find(&worker.slab, index, tag_generation(tag))
        if conn != NULL and not conn.doomed:
            on_leg(conn, worker, &conn.client if kind == EVENT_CLIENT else &conn.upstream, events)
    elif kind == EVENT_LISTENER:
        # The snapshot may have changed since epoll saw it.
        if index < worker.snapshot.listener_count:
            if (<uint32_t>worker.snapshot.listeners[index].id & 0x3fffffff) == tag_generation(tag):
                on_listener(worker.snapshot.listeners[index], worker)
    else:
        ring_awake(&worker.inbox)


cdef void close_doomed(worker_t *worker) noexcept nogil:
    cdef conn_t *conn
    while worker.doomed != NULL:
        conn = worker.doomed
        worker.doomed = conn.free_next
        conn.doomed = False
        if conn.stage == STAGE_CLOSE:
            on_timer(conn, worker)       # it lingers: no more patience
        else:
            end(conn, worker, conn.reason)


cdef void run_timers(worker_t *worker) noexcept nogil:
    cdef conn_t *conn
    while True:
        conn = timer_expired(&worker.wheel, worker.now_ns)
        if conn == NULL:
            break
        on_timer(conn, worker)
    if worker.accept_paused_until_ns != 0:
        if not worker.accept_paused:
            pause_accepting(worker, worker.accept_paused_until_ns)
        elif worker.accept_paused_until_ns <= worker.now_ns:
            worker.accept_paused = False
            worker.accept_paused_until_ns = 0
            watch_listeners(worker, True)


cdef void read_inbox(worker_t *worker) noexcept nogil:
    cdef message_t message
    cdef int _i
    for _i in range(INBOX_SLOTS):
        if not ring_pop(&worker.inbox, &message):
            break
        on_message(&message, worker)
    close_doomed(worker)                 # a stranger handed over to this worker may have doomed an older one


# ---- life ----------------------------------------------------------------------------------------

cdef bint sealing_fits(const tls_engine_t *engine) noexcept nogil:
    """Whether encrypting adds no more than was reckoned with, in records as small as a peer may ask for."""
    return (
        engine.overhead_record * SEALING_SHARE <= engine.overhead_record + FRAGMENT_MIN
        and engine.overhead_call <= <size_t>SEALING_MAX
    )


cdef worker_t *worker_new(node_t *node, uint32_t number, const tls_engine_t *engine, snapshot_t *snapshot,
                          uint32_t slots) noexcept nogil:
    cdef worker_t *worker
    if not sealing_fits(engine):
        linux.errno = EMSGSIZE
        return NULL
    worker = <worker_t *>lines_new(sizeof(worker_t))
    if worker == NULL:
        return NULL
    worker.node = node
    worker.number = number
    worker.tls_engine = engine
    worker.snapshot = snapshot_ref(snapshot)
    worker.inbox.wake_fd = -1
    worker.records.wake_fd = -1
    worker.now_ns = monotonic_ns()
    word_write(&worker.stamp_ns, worker.now_ns)
    wheel_init(&worker.wheel, worker.now_ns)
    worker.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    worker.scratch_in = <unsigned char *>aligned_alloc(4096, SCRATCH_BYTES)
    worker.scratch_plain = <unsigned char *>aligned_alloc(4096, SCRATCH_BYTES)
    worker.scratch_out = <unsigned char *>aligned_alloc(4096, SCRATCH_BYTES)
    worker.tls_pool = engine.pool_new()
    if (
        worker.epoll_fd < 0
        or worker.scratch_in == NULL
        or worker.scratch_plain == NULL
        or worker.scratch_out == NULL
        or worker.tls_pool == NULL
        or not slab_init(&worker.slab, slots)
        or not ring_init(&worker.inbox, INBOX_SLOTS, sizeof(message_t))
        or not ring_init(&worker.records, RECORD_SLOTS, sizeof(record_t))
        or poller_add(worker.epoll_fd, worker.inbox.wake_fd, EPOLLIN, event_tag(EVENT_INBOX, 0, 0)) != 0
    ):
        worker_free(worker)
        return NULL
    return worker


cdef void worker_free(worker_t *worker) noexcept nogil:
    cdef message_t message
    if worker == NULL:
        return
    while worker.inbox.cells != NULL and ring_pop(&worker.inbox, &message):
        if message.kind == MESSAGE_SOCKET:
            close(message.fd)
            listener_unref(<listener_t *>message.cell)
        elif message.kind == MESSAGE_SUBMISSION:
            close(message.fd)
            submission_free(<submission_t *>message.cell)
        elif message.kind == MESSAGE_VERDICT:
            verdict_unref(<verdict_t *>message.cell)
        elif message.kind == MESSAGE_REPLACE:
            limiter_unref(<limiter_t *>message.cell)
        else:
            order_unref(<order_t *>message.cell)
    verdicts_clear(worker)
    free(worker.verdicts)
    if worker.slab.blocks != NULL:
        slab_fini(&worker.slab)
    chunk_pool_fini(&worker.chunks)
    pipes_fini(worker)
    worker.tls_engine.pool_free(worker.tls_pool)
    snapshot_unref(worker.snapshot)
    ring_fini(&worker.inbox)
    ring_fini(&worker.records)
    if worker.epoll_fd >= 0:
        close(worker.epoll_fd)
    free(worker.scratch_in)
    free(worker.scratch_plain)
    free(worker.scratch_out)
    free(worker)


cdef int worker_start(worker_t *worker) noexcept nogil:
    cdef sigset_t all_signals
    cdef sigset_t before
    cdef char name[16]
    cdef int problem
    sigfillset(&all_signals)
    pthread_sigmask(SIG_SETMASK, &all_signals, &before)   # inherited by the new thread
    problem = pthread_create(&worker.thread, NULL, worker_main, worker)
    pthread_sigmask(SIG_SETMASK, &before, NULL)
    if problem == 0:
        snprintf(name, sizeof(name), b"lbcore-%u", worker.number)
        pthread_setname_np(worker.thread, name)
    return problem
