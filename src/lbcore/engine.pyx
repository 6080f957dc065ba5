"""Engine: what Python sees of the data plane.

Set-up calls hold a real lock, not the interpreter's, and talk to the workers by orders that each of
them carries out at the top of its loop and acknowledges. Two Python threads serve the workers: the
policy thread reads what they ask and broadcasts the answers, the record thread reads what they write
down. Codes of the core become exceptions here and nowhere else.
"""

import atexit
import logging
import os
import secrets
import select
import socket
import threading
import time
import weakref

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lbcore.addresses import bound_address, bound_socket, start_listening
from lbcore.application import check_count, check_seconds
from lbcore.authorizers import AuthorizerPool
from lbcore.codes import AUTHORIZE_REASONS, REASONS
from lbcore.host import CONNECTIONS_MAX, connections_allowed, pipes_allowed
from lbcore.limits import LimitClass
from lbcore.peer import PeerCertificate, PolicyClient, Verdict
from lbcore.settings import ServerTLS
from lbcore.source_limits import REMEMBERED, SourceLimits
from lbcore.tls import s2n as s2n_module

from lbcore.application cimport Application
from lbcore.codes cimport REASON_AUTHZ_ERROR, REASON_DRAINED, REASON_NONE, reason_t
from lbcore.from_core cimport read_connection, read_record, show_address, show_serial
from lbcore.limits cimport RateLimitManager
from lbcore.parts.cells cimport (
    app_ref,
    limiter_ref,
    listener_new,
    listener_ref,
    listener_unref,
    name_unref,
    policy_ref,
    policy_unref,
    snapshot_new,
    snapshot_unref,
    tls_unref,
    verdict_new,
    verdict_ref,
    verdict_unref,
)
from lbcore.parts.rings cimport (
    ring_awake,
    ring_fini,
    ring_init,
    ring_may_sleep,
    ring_pop,
    ring_push,
    ring_wake,
)
from lbcore.parts.sockets cimport socket_tune
from lbcore.parts.verdicts cimport verdict_hash
from lbcore.structs cimport (
    MESSAGE_ORDER,
    MESSAGE_VERDICT,
    ORDER_ABORT,
    ORDER_ADOPT,
    ORDER_LIST,
    ORDER_STOP,
    WORKERS_MAX,
    ask_t,
    conn_t,
    listener_t,
    message_t,
    node_t,
    order_kind_t,
    order_t,
    policy_t,
    record_t,
    snapshot_t,
    tls_generation_t,
    verdict_t,
    worker_t,
)
from lbcore.sys.atomics cimport (
    counter_read,
    gauge_read,
    word_read,
    word_write,
)
from lbcore.sys.linux cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    aligned_alloc,
    close,
    eventfd,
    memcpy,
    memset,
    monotonic_ns,
    pthread_join,
)
from lbcore.tls.engine cimport tls_engine_t
from lbcore.tls.s2n cimport s2n_engine
from lbcore.to_core cimport make_name, make_policy, make_tls, new_cell_id
from lbcore.worker cimport worker_free, worker_new, worker_start

LOG = logging.getLogger("lbcore")

cdef object running = weakref.WeakSet()

ORDER_TIMEOUT = 10.0             # seconds a worker may take to acknowledge
RECORD_PAUSE = 0.01              # seconds the record thread gathers before it looks again
ASKS_MAX = 4096                  # questions under way


def tls_engines():
    """TLS engines of this build: name -> library and version."""
    return {"s2n": s2n_module.version()}


# ---- Listener ------------------------------------------------------------------------------------

cdef class Listener:
    """One listening port of an application; made by ``Engine.listen``."""

    cdef listener_t *cell        # one reference
    cdef readonly Application application
    cdef readonly str address
    cdef readonly int port
    cdef object engine
    cdef object sock
    cdef object authorize
    cdef object source_limits
    cdef object __weakref__

    def __dealloc__(self):
        listener_unref(self.cell)

    def close(self):
        """Stops listening. Connections already accepted go on. Does nothing the second time."""
        self.engine._remove(self)

    def __repr__(self):
        return f"<Listener {self.application.name!r} on {self.address}>"


# ---- Engine --------------------------------------------------------------------------------------

cdef class Engine:
    """The data plane: workers that accept, judge and forward connections.

    Args:
        workers: threads, default: the CPUs this process may use.
        max_connections: connections at once; default: what the descriptor limit allows. The soft limit
            is raised to the hard one at ``start``.
        max_unauthenticated: connections at once that have not authenticated yet; beyond that the oldest
            is evicted.
        handshake_timeout: seconds from accept to the end of the TLS handshake.
        authorize_timeout: seconds an authorizer may take; then the connection is refused.
        authorize_threads: sync authorizers that run at once.
        tls_engine: ``"auto"`` or a name from ``tls_engines()``.
        on_records: called with a list of Record on the engine's record thread; None: no records.

    Thread-safety: every method may be called from any thread.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    cdef node_t *node
    cdef snapshot_t *snapshot
    cdef const tls_engine_t *tls
    cdef readonly int workers
    cdef readonly int max_connections
    cdef readonly str tls_engine
    cdef readonly str state      # "new", "running", "stopping", "stopped", "forked"
    cdef object lock
    cdef object abort
    cdef object stop_event
    cdef object on_records
    cdef object pool
    cdef object threads
    cdef dict listeners          # id -> Listener
    cdef dict app_names          # id -> name; grows with the configuration only
    cdef dict upstream_names
    cdef dict asked              # (listener, epoch, tls, key) under way
    cdef str boot
    cdef double authorize_timeout
    cdef int authorize_threads
    cdef int max_connections_wanted
    cdef uint64_t dropped        # records of workers that are gone
    cdef object __weakref__

    def __cinit__(self, **kwargs):
        self.node = <node_t *>aligned_alloc(64, (sizeof(node_t) + 63) & ~<size_t>63)
        if self.node == NULL:
            raise MemoryError
        memset(self.node, 0, sizeof(node_t))
        self.node.asks.wake_fd = -1
        self.snapshot = snapshot_new(0)
        if self.snapshot == NULL:
            raise MemoryError
        self.snapshot.epoch = 1

    def __init__(
        self,
        *,
        workers=None,
        max_connections=None,
        max_unauthenticated=4096,
        handshake_timeout=5.0,
        authorize_timeout=2.0,
        authorize_threads=4,
        tls_engine="auto",
        on_records=None,
    ):
        if workers is None:
            workers = min(len(os.sched_getaffinity(0)), WORKERS_MAX)
        self.workers = check_count("workers", workers, 1, WORKERS_MAX)
        if max_connections is not None:
            check_count("max_connections", max_connections, 1, CONNECTIONS_MAX)
        self.max_connections = self.max_connections_wanted = max_connections or 0
        self.node.unauthenticated_max = check_count("max_unauthenticated", max_unauthenticated, 1, 2**31 - 1)
        self.node.handshake_timeout_ns = check_seconds("handshake_timeout", handshake_timeout)
        self.node.authorize_timeout_ns = check_seconds("authorize_timeout", authorize_timeout)
        self.authorize_timeout = authorize_timeout
        self.authorize_threads = check_count("authorize_threads", authorize_threads, 1, 256)
        if tls_engine == "auto":
            tls_engine = "s2n"
        if tls_engine not in tls_engines():
            raise ValueError(f"tls_engine: 'auto' or one of {sorted(tls_engines())}, not {tls_engine!r}")
        if on_records is not None and not callable(on_records):
            raise TypeError(f"on_records: a callable or None, not {on_records!r}")
        self.tls_engine = tls_engine
        self.tls = &s2n_engine
        self.on_records = on_records
        self.node.records_wanted = on_records is not None
        self.lock = threading.RLock()
        self.abort = threading.Event()
        self.stop_event = threading.Event()
        self.threads = []
        self.listeners = {}
        self.app_names = {}
        self.upstream_names = {0: None}
        self.asked = {}
        self.boot = f"{time.time_ns() // 1000000:x}{secrets.randbits(16):04x}"
        self.state = "new"

    def __dealloc__(self):
        # A running engine is kept alive by its threads, so there are no workers here.
        if self.node != NULL and self.state != "forked":
            ring_fini(&self.node.asks)
            snapshot_unref(self.snapshot)
            free(self.node)

    @property
    def running(self):
        """Whether the workers are there."""
        return self.state in ("running", "stopping")

    # ---- start and stop

    def start(self):
        """Raises the descriptor limit and starts the workers.

        Raises:
            RuntimeError: it was started before.
            OSError: out of descriptors, threads or memory.
        """
        with self.lock:
            if self.state != "new":
                raise RuntimeError(f"engine: cannot start, it is {self.state}")
            self.node.pipes_max = pipes_allowed()
            self.max_connections = connections_allowed(
                self.max_connections_wanted, self.workers, self.node.pipes_max)
            self.node.open_max = self.max_connections
            if not ring_init(&self.node.asks, ASKS_MAX, sizeof(ask_t)):
                raise MemoryError
            self._make_workers()
            self.pool = AuthorizerPool(self.authorize_threads, self.authorize_timeout)
            self.state = "running"
            self._start_thread(self._serve_policy, "lbcore-policy")
            if self.on_records is not None:
                self._start_thread(self._serve_records, "lbcore-records")
            running.add(self)

    def _make_workers(self):
        cdef int i
        cdef int problem = 0
        for i in range(self.workers):
            self.node.workers[i] = worker_new(
                self.node, i, self.tls, self.snapshot, <uint32_t>self.max_connections + 64)
            if self.node.workers[i] == NULL:
                problem = 12             # ENOMEM
                break
            self.node.worker_count = i + 1
        for i in range(self.workers if problem == 0 else 0):
            problem = worker_start(self.node.workers[i])
            if problem != 0:
                self._order(ORDER_STOP, count=i)
                self._join(i)
                break
        if problem != 0:
            self._free_workers()
            self.state = "stopped"
            raise OSError(problem, os.strerror(problem))

    def _start_thread(self, target, name):
        thread = threading.Thread(target=target, name=name, daemon=True)
        self.threads.append(thread)
        thread.start()

    def stop(self, drain=0.0):
        """Stops accepting, lets open connections finish for up to ``drain`` seconds, ends the rest
        (reason ``drained``) and the threads. Does nothing when it is not running.

        Returns:
            bool: whether all connections finished by themselves.
        """
        if not isinstance(drain, (int, float)) or not drain >= 0:
            raise ValueError(f"drain: seconds, 0 or more, not {drain!r}")
        with self.lock:
            if self.state != "running":
                return True
            self.state = "stopping"
            for listener in list(self.listeners.values()):
                self._remove(listener)
        deadline = time.monotonic() + drain
        while gauge_read(&self.node.open) > 0 and time.monotonic() < deadline:
            if self.abort.wait(0.02):
                break
        finished = gauge_read(&self.node.open) == 0
        with self.lock:
            if not finished:
                self._order(ORDER_ABORT, reason=REASON_DRAINED)
            self._order(ORDER_STOP)
            self._join(self.workers)
            self.stop_event.set()
            word_write(&self.node.asks.sleeping, 1)
            ring_wake(&self.node.asks)
            for i in range(self.workers):
                word_write(&self.node.workers[i].records.sleeping, 1)
                ring_wake(&self.node.workers[i].records)
        for thread in self.threads:
            if thread is not threading.current_thread():
                thread.join()
        with self.lock:
            self.pool.close()
            self._forget_asks()
            ring_fini(&self.node.asks)
            self._free_workers()
            self.state = "stopped"
            running.discard(self)
        return finished

    def abort_drain(self):
        """Makes a ``stop`` that drains on another thread end the connections now."""
        self.abort.set()

    cdef _join(self, int count):
        cdef int i
        for i in range(count):
            with nogil:
                pthread_join(self.node.workers[i].thread, NULL)

    cdef _free_workers(self):
        cdef int i
        for i in range(WORKERS_MAX):
            if self.node.workers[i] != NULL:
                self.dropped += counter_read(&self.node.workers[i].records.dropped)
                worker_free(self.node.workers[i])
                self.node.workers[i] = NULL
        self.node.worker_count = 0

    cdef _check_running(self):
        if self.state != "running":
            raise RuntimeError(f"engine: not running, it is {self.state}")

    # ---- orders

    def _order(self, order_kind_t kind, reason_t reason=REASON_NONE, count=None, collect=None):
        """Has every worker carry out one order and waits for all of them."""
        cdef order_t *order = <order_t *>calloc(1, sizeof(order_t))
        cdef int i
        cdef int workers = self.workers if count is None else count
        cdef message_t message
        if order == NULL:
            raise MemoryError
        order.kind = kind
        order.reason = reason
        order.snapshot = self.snapshot
        order.done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if order.done_fd < 0:
            free(order)
            raise OSError("engine: no descriptor left to talk to the workers")
        word_write(&order.pending, <uint64_t>workers)
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_ORDER
        message.cell = order
        for i in range(workers):
            while not ring_push(&self.node.workers[i].inbox, &message):
                ring_wake(&self.node.workers[i].inbox)
                time.sleep(0.001)        # its inbox is full: it is at work on it
            ring_wake(&self.node.workers[i].inbox)
        if workers and not wait_readable(order.done_fd, ORDER_TIMEOUT):
            # Not freed: a worker that wakes up late will still write to it.
            raise RuntimeError(f"engine: a worker did not answer within {ORDER_TIMEOUT:.0f} s")
        if workers:
            os.read(order.done_fd, 8)    # what the workers wrote before happens before what follows
        try:
            if collect is not None:
                for i in range(workers):
                    self._collect(order, i, collect)
        finally:
            for i in range(workers):
                free(order.infos[i])
            close(order.done_fd)
            free(order)

    cdef _collect(self, order_t *order, int worker, list out):
        cdef uint32_t i
        for i in range(order.info_counts[worker]):
            info = &order.infos[worker][i]
            out.append(read_connection(info, worker, self.boot, self.app_names, self.upstream_names))
            name_unref(info.client)

    cdef _publish(self, snapshot_t *snapshot):
        """Makes it the configuration; returns when every worker has adopted it."""
        cdef snapshot_t *old = self.snapshot
        self.snapshot = snapshot
        try:
            self._order(ORDER_ADOPT)
        finally:
            snapshot_unref(old)

    cdef snapshot_t *_next_snapshot(self, uint32_t room) except NULL:
        """A copy of the current configuration with room for that many listeners, none filled in."""
        cdef snapshot_t *snapshot = snapshot_new(room)
        if snapshot == NULL:
            raise MemoryError
        snapshot.listener_count = 0
        snapshot.epoch = self.snapshot.epoch
        snapshot.policy = policy_ref(self.snapshot.policy)
        return snapshot

    # ---- listeners

    def listen(
        self,
        Application application not None,
        str address not None,
        *,
        tls=None,
        plaintext=False,
        authorize=None,
        source_limits=None,
    ):
        """Opens a port for an application.

        Args:
            application: where its connections go.
            address: ``"0.0.0.0:443"``, ``"[::]:443"`` (both families); port 0 takes a free one.
            tls: ServerTLS; every client must then prove who it is.
            plaintext: instead of ``tls``: nobody is identified. Must be said in so many words.
            authorize: called with (PeerCertificate, application name), answers a Verdict or an
                awaitable of one; required with ``tls``. Answers are cached by certificate.
            source_limits: with ``plaintext``: a LimitClass counted per source address.

        Returns:
            Listener.

        Raises:
            OSError: the port cannot be opened, or a certificate file cannot be read.
            TypeError, ValueError: naming the argument.
            RuntimeError: the engine is not running.
        """
        cdef Listener listener
        cdef tls_generation_t *generation = NULL
        cdef snapshot_t *snapshot
        cdef uint32_t i
        check_listen(tls, plaintext, authorize, source_limits)
        with self.lock:
            self._check_running()
            sock = bound_socket(address)
            try:
                socket_tune(sock.fileno(), application.cell.keepalive_s)
                start_listening(sock, address)
                if tls is not None:
                    generation = make_tls(self.tls, tls)
                listener = Listener.__new__(Listener)
                listener.cell = listener_new()
                if listener.cell == NULL:
                    tls_unref(generation)
                    raise MemoryError
                listener.cell.id = new_cell_id()
                listener.cell.app = app_ref(application.cell)
                listener.cell.tls = generation
                listener.cell.asks = tls is not None or source_limits is not None
                listener.cell.uses_policy = tls is not None
                listener.cell.fd = os.dup(sock.fileno())
            except BaseException:
                sock.close()
                raise
            listener.engine = self
            listener.application = application
            listener.sock = sock
            listener.address = bound_address(sock)
            listener.port = sock.getsockname()[1]
            listener.authorize = authorize
            listener.source_limits = SourceLimits(source_limits) if source_limits is not None else None
            self.listeners[listener.cell.id] = listener
            self.app_names[application.cell.id] = application.name
            for server in application.upstreams:
                self.upstream_names[server.id] = server.address
            snapshot = self._next_snapshot(self.snapshot.listener_count + 1)
            for i in range(self.snapshot.listener_count):
                snapshot.listeners[i] = listener_ref(self.snapshot.listeners[i])
            snapshot.listeners[self.snapshot.listener_count] = listener_ref(listener.cell)
            snapshot.listener_count = self.snapshot.listener_count + 1
            self._publish(snapshot)
            return listener

    def _remove(self, Listener listener not None):
        cdef snapshot_t *snapshot
        cdef uint32_t i
        with self.lock:
            if listener.cell == NULL or self.listeners.pop(listener.cell.id, None) is None:
                return
            if not self.running:
                return
            snapshot = self._next_snapshot(self.snapshot.listener_count)
            for i in range(self.snapshot.listener_count):
                if self.snapshot.listeners[i] is not listener.cell:
                    snapshot.listeners[snapshot.listener_count] = listener_ref(self.snapshot.listeners[i])
                    snapshot.listener_count += 1
            self._publish(snapshot)
            # Connections keep the cell and its descriptor; the port must be free now all the same.
            listener.sock.shutdown(socket.SHUT_RDWR)
            listener.sock.close()
            listener_unref(listener.cell)    # the Python object may live on; the descriptor must not
            listener.cell = NULL

    def set_policy(self, clients):
        """Replaces the native table of clients, which refuses strangers without asking Python, for all
        TLS listeners; None: no table. Starts a new epoch: cached verdicts are forgotten, waiting
        connections are judged again, and open ones that lost access are closed.

        Args:
            clients: PolicyClient objects, or None.

        Returns:
            int: the new epoch.

        Raises:
            TypeError, ValueError: what is wrong with a client.
        """
        cdef policy_t *policy = NULL
        cdef snapshot_t *snapshot
        cdef uint32_t i
        if clients is not None:
            clients = list(clients)
            for client in clients:
                if not isinstance(client, PolicyClient):
                    raise TypeError(f"clients: PolicyClient objects, not {client!r}")
            policy = make_policy(clients)
        with self.lock:
            snapshot = self._next_snapshot(self.snapshot.listener_count)
            policy_unref(snapshot.policy)
            snapshot.policy = policy
            snapshot.epoch += 1
            for i in range(self.snapshot.listener_count):
                snapshot.listeners[i] = listener_ref(self.snapshot.listeners[i])
            snapshot.listener_count = self.snapshot.listener_count
            if self.state == "new":
                snapshot_unref(self.snapshot)
                self.snapshot = snapshot
            elif self.state == "running":
                self._publish(snapshot)
            else:
                snapshot_unref(snapshot)
                self._check_running()
            return self.snapshot.epoch

    # ---- what is going on

    def connections(self):
        """The open connections, each as a dict: id, app, stage, client, serial, source, upstream,
        upstream_local, age_s, bytes_in, bytes_out. Empty when not running.

        Raises:
            RuntimeError: a worker does not answer.
        """
        found = []
        with self.lock:
            if self.state in ("running", "stopping"):
                self._order(ORDER_LIST, collect=found)
        return found

    def stats(self):
        """One snapshot of all counters, as plain dicts. Any thread, never blocks a worker."""
        cdef uint64_t now = monotonic_ns()
        cdef uint64_t dropped
        cdef worker_t *worker
        with self.lock:
            dropped = self.dropped
            workers = []
            for i in range(self.node.worker_count):
                worker = self.node.workers[i]
                dropped += counter_read(&worker.records.dropped)
                stamp = word_read(&worker.stamp_ns)
                workers.append({
                    "open": gauge_read(&worker.load),
                    "accepted": counter_read(&worker.accepted),
                    "handed_over": counter_read(&worker.handed_over),
                    "wakeups": counter_read(&worker.wakeups),
                    "stamp_age_s": (now - stamp) / 1e9 if now > stamp else 0.0,
                })
            applications = {}
            for listener in self.listeners.values():
                applications[listener.application.name] = listener.application.stats()
            return {
                "state": self.state,
                "tls_engine": self.tls_engine,
                "open": gauge_read(&self.node.open),
                "unauthenticated": gauge_read(&self.node.unauthenticated),
                "max_connections": self.max_connections,
                "accept_errors": counter_read(&self.node.accept_errors),
                "log_dropped": dropped,
                "epoch": self.snapshot.epoch,
                "workers": workers,
                "applications": applications,
            }

    # ---- the policy thread

    def _serve_policy(self):
        cdef ask_t question
        while not self.stop_event.is_set():
            while ring_pop(&self.node.asks, &question):
                self._take_question(&question)
            if ring_may_sleep(&self.node.asks):
                wait_readable(self.node.asks.wake_fd, None)
                ring_awake(&self.node.asks)

    cdef _take_question(self, ask_t *question):
        cdef bytes key = (<const char *>question.key)[:question.key_length]
        free(question.key)
        # What is copied here is all that outlives this call.
        listener_id = question.listener_id
        name = (listener_id, question.epoch, question.tls_id, key)
        listener = self.listeners.get(listener_id)
        if listener is None or name in self.asked or len(self.asked) >= ASKS_MAX:
            return                       # asked already, or left to the connection's own deadline
        if (<Listener>listener).source_limits is not None:
            self._answer_source(name, (<Listener>listener).source_limits)
            return
        peer = PeerCertificate(
            key,
            show_serial(question.serial, question.serial_length),
            show_address(&question.source),
        )
        self.asked[name] = True
        self.pool.submit(
            (<Listener>listener).authorize,
            peer,
            (<Listener>listener).application.name,
            question.deadline_ns / 1e9,
            lambda verdict: self._answer(name, verdict),
        )

    def _answer_source(self, name, limits):
        family = socket.AF_INET if len(name[3]) == 4 else socket.AF_INET6
        manager = limits.manager_for(socket.inet_ntop(family, name[3]))
        if manager is None:
            self._broadcast(name, None, manager, REASON_AUTHZ_ERROR, 0.0)
        else:
            self._broadcast(name, None, manager, REASON_NONE, REMEMBERED)

    def _answer(self, name, verdict):
        """An authorizer's answer, on whichever thread it ran; None: it failed."""
        self.asked.pop(name, None)
        if isinstance(verdict, Verdict):
            limits_fit = verdict.limits is None or isinstance(verdict.limits, RateLimitManager)
            if limits_fit and verdict.allow:
                self._broadcast(name, verdict.client, verdict.limits, REASON_NONE, verdict.ttl)
                return
            if limits_fit and verdict.reason in AUTHORIZE_REASONS:
                self._broadcast(name, verdict.client, None, REASONS.index(verdict.reason), verdict.ttl)
                return
        self._broadcast(name, None, None, REASON_AUTHZ_ERROR, 0.0)

    def _broadcast(self, name, client, limits, reason_t reason, ttl):
        """Sends one answer to every worker; an inbox that is full leaves its connections to time out."""
        cdef bytes key = name[3]
        cdef verdict_t *verdict = verdict_new(<uint32_t>len(key))
        cdef message_t message
        cdef int i
        if verdict == NULL:
            return
        try:
            if client is not None:
                verdict.client = make_name(client)
            if limits is not None:
                verdict.limiter = limiter_ref((<RateLimitManager>limits).cell)
            verdict.reason = reason
            verdict.listener_id = name[0]
            verdict.epoch = name[1]
            verdict.tls_id = name[2]
            if ttl is not None:
                verdict.expires_ns = monotonic_ns() + <uint64_t>(min(ttl, 1e9) * 1e9)
            memcpy(verdict.key, <const char *>key, len(key))
            verdict.hash = verdict_hash(verdict.key, verdict.key_length)
            memset(&message, 0, sizeof(message))
            message.kind = MESSAGE_VERDICT
            message.cell = verdict
            with self.lock:
                for i in range(self.node.worker_count):
                    verdict_ref(verdict)
                    if ring_push(&self.node.workers[i].inbox, &message):
                        ring_wake(&self.node.workers[i].inbox)
                    else:
                        verdict_unref(verdict)
        finally:
            verdict_unref(verdict)

    cdef _forget_asks(self):
        cdef ask_t question
        while ring_pop(&self.node.asks, &question):
            free(question.key)

    # ---- the record thread

    def _serve_records(self):
        poll = select.poll()
        for i in range(self.workers):
            poll.register(self.node.workers[i].records.wake_fd, select.POLLIN)
        while True:
            stopping = self.stop_event.is_set()
            batch = []
            asleep = True
            for i in range(self.workers):
                self._drain_records(self.node.workers[i], batch)
            if batch:
                self._deliver(batch)
            if stopping:
                return
            for i in range(self.workers):
                asleep = ring_may_sleep(&self.node.workers[i].records) and asleep
            if asleep:
                poll.poll()
            for i in range(self.workers):
                ring_awake(&self.node.workers[i].records)
            self.stop_event.wait(RECORD_PAUSE)   # gathers a batch instead of waking for each record

    def _deliver(self, batch):
        try:
            self.on_records(batch)
        except Exception:
            LOG.exception("on_records failed; %d records are lost", len(batch))

    cdef _drain_records(self, worker_t *worker, list batch):
        cdef record_t entry
        while ring_pop(&worker.records, &entry):
            batch.append(read_record(&entry, self.boot, self.app_names, self.upstream_names))
            name_unref(entry.client)
            free(entry.leaf)

    def __repr__(self):
        return f"<Engine {self.state} workers={self.workers}>"


# ---- set-up details ------------------------------------------------------------------------------

def check_listen(tls, plaintext, authorize, source_limits):
    """Raises TypeError or ValueError when the arguments of ``listen`` do not go together."""
    if plaintext:
        if tls is not None or authorize is not None:
            raise ValueError("plaintext: nobody is identified, so neither tls nor authorize makes sense")
        if source_limits is not None and not isinstance(source_limits, LimitClass):
            raise TypeError(f"source_limits: a LimitClass or None, not {source_limits!r}")
        return
    if not isinstance(tls, ServerTLS):
        raise TypeError("tls: a ServerTLS; a listener without TLS must say plaintext=True")
    if not callable(authorize):
        raise TypeError("authorize: a callable; nobody is let in by default")
    if source_limits is not None:
        raise ValueError("source_limits: only with plaintext=True; TLS clients have Verdict.limits")


def wait_readable(int fd, timeout):
    """Whether the descriptor became readable within ``timeout`` seconds (None: for ever)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


# ---- the process ---------------------------------------------------------------------------------

def stop_all():
    """At exit: workers must not outlive the interpreter."""
    for engine in list(running):
        engine.abort_drain()
        engine.stop()


def forget_all():
    """In a forked child: the threads do not exist here. The descriptors are copies and are closed, or
    the parent's peers would not see its FIN; the memory is left as it is."""
    for engine in list(running):
        abandon(engine)
    running.clear()


cdef abandon(Engine engine):
    cdef uint32_t i
    cdef uint32_t slot
    cdef worker_t *worker
    cdef conn_t *conn
    engine.state = "forked"
    for i in range(engine.node.worker_count):
        worker = engine.node.workers[i]
        close(worker.epoll_fd)
        close(worker.inbox.wake_fd)
        close(worker.records.wake_fd)
        for slot in range(worker.slab.next_index):
            conn = &worker.slab.blocks[slot // 256][slot % 256]
            if conn.in_use and conn.client.fd >= 0:
                close(conn.client.fd)
            if conn.in_use and conn.upstream.fd >= 0:
                close(conn.upstream.fd)
    close(engine.node.asks.wake_fd)
    for i in range(engine.snapshot.listener_count):
        close(engine.snapshot.listeners[i].fd)
        engine.snapshot.listeners[i].fd = -1
    for listener in engine.listeners.values():
        (<Listener>listener).sock.close()


atexit.register(stop_all)
os.register_at_fork(after_in_child=forget_all)
