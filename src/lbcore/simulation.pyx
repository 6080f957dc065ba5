"""Simulation: the limits and the picking of the data path, with a clock that is moved by hand.

It is not a model of them: a worker without a thread and without sockets runs the same stages
(path/limit.pyx, path/pick.pyx, path/close.pyx) on the same structs. Only the dial is made up: it succeeds at
once, or fails for an upstream that was said to be down.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from lbcore.application import check_count
from lbcore.clock import ManualClock

from lbcore.application cimport Application, UpstreamServer
from lbcore.codes cimport (
    REASON_CLIENT_CLOSED,
    REASON_CONNECT_FAILED,
    REASON_MAX_LIFETIME,
    REASON_REPLACED,
    STAGE_CLOSE,
    STAGE_DIAL,
    STAGE_FORWARD,
    STAGE_LIMIT,
    STAGE_PICK,
    STEP_CLOSE,
    STEP_NEXT,
    STEP_REPICK,
    STEP_WAIT,
    reason_t,
    stage_t,
    step_t,
)
from lbcore.from_core cimport read_record
from lbcore.limits cimport RateLimitManager
from lbcore.parts.cells cimport app_ref, limiter_ref, limiter_unref, lines_new
from lbcore.parts.health cimport health_dialled, health_failed
from lbcore.parts.rings cimport ring_fini, ring_init, ring_pop
from lbcore.parts.slab cimport slab_fini, slab_find, slab_init, slab_slot, slab_take
from lbcore.parts.submissions cimport completion_free, completion_new, completions_take
from lbcore.parts.succession cimport succession_oldest
from lbcore.parts.timers cimport timer_arm, timer_expired, timer_wait_ms, wheel_init
from lbcore.parts.waiting cimport sweep_begin, sweep_next, sweep_refused, sweep_t
from lbcore.path.close cimport close_step, close_upstream
from lbcore.path.limit cimport limit_step
from lbcore.path.pick cimport pick_step
from lbcore.structs cimport (
    LEG_ENDED,
    LEG_FINISHED,
    completion_t,
    conn_t,
    limiter_t,
    message_t,
    node_t,
    worker_t,
)
from lbcore.sys.atomics cimport counter_add, counter_next, gauge_read, gauge_take, word_read
from lbcore.sys.linux cimport AF_INET
from lbcore.to_core cimport make_name, new_cell_id

CONNECTIONS_MAX = 1_000_000      # at once
SEED_MAX = 2**32 - 1
cdef enum:
    INBOX_SLOTS = 4096
    STEP_NS = 1000000            # how far the clock moves at least while something waits


cdef class SimulatedConnection:
    """One connection of a Simulation; made by ``Simulation.open``.

    Attributes:
        id: as in its record.
        upstream: the UpstreamServer it was forwarded to, or None.
        record: how it ended, or None while it has not.
    """

    cdef Simulation simulation
    cdef uint32_t index
    cdef uint32_t generation
    cdef readonly str id
    cdef readonly UpstreamServer upstream
    cdef readonly object record

    @property
    def state(self):
        """``"delayed"``, ``"open"`` or ``"ended"``; as of the last time the simulation did something."""
        if self.record is not None:
            return "ended"
        return "open" if self.upstream is not None else "delayed"

    @property
    def reason(self):
        """Why it ended, or None."""
        return self.record.reason if self.record is not None else None

    def close(self):
        """The client closes. Does nothing when it has ended already."""
        if self.simulation is None:
            raise RuntimeError("SimulatedConnection: only Simulation.open makes one")
        self.simulation._close(self)

    def __repr__(self):
        return f"<SimulatedConnection {self.id} {self.state} {self.reason or ''}>"


cdef class Simulation:
    """Runs connections of one application through limit, pick and a made-up dial: the verdicts are those the
    sockets would get, at the speed of function calls, and the same for the same calls and seed.

    Args:
        application: made for this purpose: once simulated, it serves no engine.
        clock: a ManualClock; the limits given to ``open``, and those of the application, have the same one.
        seed: where the rotation of equally loaded upstreams starts.

    Raises:
        TypeError, ValueError: naming the argument.
        OSError, MemoryError: out of descriptors or memory.

    Thread-safety: one thread at a time.
    """

    cdef node_t *node
    cdef worker_t *worker
    cdef readonly Application application
    cdef readonly object clock
    cdef dict connections        # id -> SimulatedConnection that has not ended
    cdef set down                # ids of upstreams whose dials fail

    def __cinit__(self, *args, **kwargs):
        self.node = <node_t *>lines_new(sizeof(node_t))
        self.worker = <worker_t *>lines_new(sizeof(worker_t))
        if self.node == NULL or self.worker == NULL:
            raise MemoryError
        self.worker.inbox.wake_fd = -1

    def __init__(self, Application application not None, *, clock, seed=0):
        if self.clock is not None:
            raise RuntimeError("Simulation: already made")
        if not isinstance(clock, ManualClock):
            raise TypeError(f"clock: a ManualClock, not {clock!r}")
        check_count("seed", seed, 0, SEED_MAX)
        application.made()
        if application.limits is not None and application.limits.clock is not clock:
            raise ValueError("application: its limits have another clock")
        if application.simulated or application.open_connections:
            raise ValueError("application: in use; make one for each Simulation")
        self._allocate(clock)
        application.simulated = True
        counter_add(&application.cell.rotor, <uint64_t>seed)
        self.application = application
        self.connections = {}
        self.down = set()
        self.clock = clock

    cdef _allocate(self, clock):
        if self.worker.inbox.cells == NULL:
            if not ring_init(&self.worker.inbox, INBOX_SLOTS, sizeof(message_t)):
                raise MemoryError
        if self.worker.slab.blocks == NULL:
            if not slab_init(&self.worker.slab, CONNECTIONS_MAX):
                raise MemoryError
        self.node.number = <uint32_t>new_cell_id()
        self.node.worker_count = 1
        self.node.workers[0] = self.worker
        self.node.completions_fd = -1
        self.worker.node = self.node
        self.worker.simulated = True
        self.worker.epoll_fd = -1
        self.worker.now_ns = clock.ns
        wheel_init(&self.worker.wheel, self.worker.now_ns)

    def __dealloc__(self):
        cdef uint32_t i
        cdef conn_t *conn
        if self.worker != NULL and self.worker.slab.blocks != NULL:
            for i in range(self.worker.slab.next_index):
                conn = slab_slot(&self.worker.slab, i)
                if conn.in_use:
                    finish(conn, self.worker, REASON_CLIENT_CLOSED, conn.stage)
            free_completions(self.node)
            slab_fini(&self.worker.slab)
        if self.worker != NULL:
            drop_messages(self.worker)
            ring_fini(&self.worker.inbox)
        free(self.worker)
        free(self.node)

    # ---- events

    def open(self, limits=None, *, client=None):
        """A connection arrives.

        Args:
            limits: the RateLimitManager it counts in, with this simulation's clock; or None.
            client: a name for the record, or None.

        Returns:
            SimulatedConnection: forwarded (``open``), held back by a limit (``delayed``) or refused
            (``ended``, with the reason).

        Raises:
            TypeError, ValueError: naming the argument.
            RuntimeError: more connections at once than a simulation holds.
        """
        cdef completion_t *completion
        cdef conn_t *conn
        cdef SimulatedConnection connection
        if limits is not None and not isinstance(limits, RateLimitManager):
            raise TypeError(f"limits: a RateLimitManager or None, not {limits!r}")
        if limits is not None and (<RateLimitManager>limits).name is None:
            raise ValueError("limits: a RateLimitManager whose __init__ was not called")
        if limits is not None and limits.clock is not self.clock:
            raise ValueError("limits: they have another clock")
        if client is not None and not isinstance(client, str):
            raise TypeError(f"client: a name or None, not {client!r}")
        self._catch_up()
        completion = completion_new()
        if completion == NULL:
            raise MemoryError
        conn = slab_take(&self.worker.slab)
        if conn == NULL:
            completion_free(completion)
            raise RuntimeError(f"simulation: more than {CONNECTIONS_MAX} connections at once")
        gauge_take(&self.worker.load)
        gauge_take(&self.application.cell.open)
        counter_add(&self.application.cell.accepted, 1)
        conn.stage = STAGE_LIMIT
        conn.id = counter_next(&self.node.next_id) + 1
        conn.app = app_ref(self.application.cell)
        conn.source.sin6_family = AF_INET
        conn.accepted_ns = self.worker.now_ns
        conn.client.flags = LEG_ENDED | LEG_FINISHED     # there is no socket to linger for
        if limits is not None:
            conn.limiter = limiter_ref((<RateLimitManager>limits).cell)
        connection = SimulatedConnection()
        connection.simulation = self
        connection.index = conn.index
        connection.generation = conn.generation
        connection.id = f"simulation-0-{conn.id}"
        self.connections[conn.id] = connection
        conn.completion = completion
        if client is not None:
            conn.client_name = make_name(client)
        self._run(conn)
        self._read_inbox()
        self._tell()
        return connection

    def advance(self, seconds):
        """Moves the clock on; what becomes due on the way happens in its order.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        self.clock.advance(seconds)
        self._catch_up()

    def fail(self, UpstreamServer upstream not None):
        """From now on dials to this upstream fail.

        Raises:
            ValueError: it is not one of the application's.
        """
        self._check(upstream)
        self.down.add(upstream.id)

    def recover(self, UpstreamServer upstream not None):
        """Dials to this upstream succeed again.

        Raises:
            ValueError: it is not one of the application's.
        """
        self._check(upstream)
        self.down.discard(upstream.id)

    def ejected(self, UpstreamServer upstream not None):
        """Whether failed dials keep it out of the pool at the moment.

        Raises:
            ValueError: it is not one of the application's.
        """
        self._check(upstream)
        self._catch_up()
        return word_read(&upstream.cell.quarantined_until_ns) > self.worker.now_ns

    cdef _check(self, UpstreamServer upstream):
        if self.application is None or upstream not in self.application.upstreams:
            raise ValueError("upstream: not one of the application's")

    cdef UpstreamServer _server(self, uint64_t id):
        for server in self.application.upstreams:
            if server.id == id:
                return server
        raise LookupError("an upstream that was picked and is not there")

    # ---- what a worker does

    cdef _run(self, conn_t *conn):
        cdef step_t step
        cdef SimulatedConnection connection
        while True:
            if conn.stage == STAGE_LIMIT:
                step = limit_step(conn, self.worker)
            elif conn.stage == STAGE_PICK:
                step = pick_step(conn, self.worker)
            else:
                step = self._dial(conn)
            if step == STEP_WAIT:
                return
            if step == STEP_CLOSE:
                finish(conn, self.worker, conn.reason, conn.stage)
                return
            if step == STEP_REPICK:
                close_upstream(conn, self.worker)
                conn.stage = STAGE_PICK
            else:
                conn.stage = <stage_t>(conn.stage + 1)
            if conn.stage == STAGE_FORWARD:
                conn.forwarding = True
                counter_add(&conn.app.forwarded, 1)
                if conn.ends_ns:
                    timer_arm(&self.worker.wheel, conn, conn.ends_ns)
                connection = self.connections[conn.id]
                connection.upstream = self._server(conn.picked.id)
                return

    cdef step_t _dial(self, conn_t *conn):
        """What path/dial.pyx makes of a connection that is refused, or accepted at once."""
        conn.dialled_ns = self.worker.now_ns
        if conn.picked.id not in self.down:
            health_dialled(conn.app, conn.picked, self.worker.now_ns)
            conn.probing = False
            conn.connected_ns = self.worker.now_ns
            return STEP_NEXT
        health_failed(conn.app, conn.picked, conn.probing, self.worker.now_ns)
        conn.probing = False
        conn.dial_failure = REASON_CONNECT_FAILED
        if conn.attempts < conn.app.connect_attempts:
            return STEP_REPICK
        conn.reason = REASON_CONNECT_FAILED
        return STEP_CLOSE

    cdef _catch_up(self):
        """From the worker's time to the clock's, from one deadline to the next."""
        if self.clock is None:
            raise RuntimeError("Simulation: its __init__ was not called")
        cdef uint64_t target_ns = self.clock.ns
        while self.worker.now_ns < target_ns:
            self.worker.now_ns = self._next_ns(target_ns)
            self._run_timers()
            if self.worker.delayed != NULL and self.worker.delayed_due_ns <= self.worker.now_ns:
                self._try_delayed()
            self._read_inbox()
        self._tell()

    cdef uint64_t _next_ns(self, uint64_t target_ns):
        cdef uint64_t next_ns = target_ns
        cdef int timers_ms = timer_wait_ms(&self.worker.wheel, self.worker.now_ns)
        if timers_ms >= 0 and self.worker.now_ns + <uint64_t>timers_ms * STEP_NS < next_ns:
            next_ns = self.worker.now_ns + <uint64_t>timers_ms * STEP_NS
        if self.worker.delayed != NULL and self.worker.delayed_due_ns < next_ns:
            next_ns = self.worker.delayed_due_ns
        if next_ns <= self.worker.now_ns:
            next_ns = self.worker.now_ns + STEP_NS
        return next_ns if next_ns < target_ns else target_ns

    cdef _run_timers(self):
        cdef conn_t *conn
        while True:
            conn = timer_expired(&self.worker.wheel, self.worker.now_ns)
            if conn == NULL:
                return
            if conn.stage == STAGE_FORWARD:
                finish(conn, self.worker, REASON_MAX_LIFETIME, STAGE_FORWARD)
            else:
                conn.expired = True
                self._run(conn)

    cdef _try_delayed(self):
        cdef sweep_t sweep
        cdef conn_t *conn
        sweep_begin(self.worker, &sweep)
        while True:
            conn = sweep_next(&sweep)
            if conn == NULL:
                return
            self._run(conn)
            sweep_refused(&sweep, conn)

    cdef _read_inbox(self):
        """Newcomers of a full scope ask for its oldest connection to end."""
        cdef message_t message
        cdef limiter_t *limiter
        cdef conn_t *conn
        while ring_pop(&self.worker.inbox, &message):
            limiter = <limiter_t *>message.cell
            conn = succession_oldest(self.worker, limiter)
            if conn != NULL and gauge_read(&limiter.open) >= limiter.open_max:
                finish(conn, self.worker, REASON_REPLACED, STAGE_FORWARD)
            limiter_unref(limiter)

    cdef _tell(self):
        """Gives the records of those that ended to their objects."""
        cdef completion_t *completion = completions_take(self.node)
        cdef completion_t *following
        cdef SimulatedConnection connection
        names = {self.application.cell.id: self.application.name}
        while completion != NULL:
            following = completion.next
            completion.record.wall_ns = <uint64_t>(self.clock.now * 1e9)
            connection = self.connections.pop(completion.record.id)
            connection.record = read_record(&completion.record, "simulation", names)
            completion_free(completion)
            completion = following

    def _close(self, SimulatedConnection connection not None):
        """``SimulatedConnection.close``."""
        cdef conn_t *conn
        self._catch_up()
        conn = slab_find(&self.worker.slab, connection.index, connection.generation)
        if conn != NULL:
            finish(conn, self.worker, REASON_CLIENT_CLOSED, conn.stage)
            self._tell()

    def __repr__(self):
        return f"<Simulation of {self.application!r} at {self.clock!r}>"


cdef void finish(conn_t *conn, worker_t *worker, reason_t reason, stage_t stage) noexcept nogil:
    conn.reason = reason
    # Nobody is left to try: the last dial ended it.
    conn.ended_at = STAGE_DIAL if stage == STAGE_PICK and reason == REASON_CONNECT_FAILED else stage
    conn.stage = STAGE_CLOSE
    close_step(conn, worker)


cdef void free_completions(node_t *node) noexcept nogil:
    cdef completion_t *completion = completions_take(node)
    cdef completion_t *following
    while completion != NULL:
        following = completion.next
        completion_free(completion)
        completion = following


cdef void drop_messages(worker_t *worker) noexcept nogil:
    cdef message_t message
    while worker.inbox.cells != NULL and ring_pop(&worker.inbox, &message):
        limiter_unref(<limiter_t *>message.cell)
