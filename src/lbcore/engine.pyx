"""Engine: what Python sees of the data plane.

Set-up calls hold a real lock, not the interpreter's, and talk to the workers by orders that each of
them carries out and acknowledges. Two Python threads serve the workers: policy_service.pyx answers what
they ask, record_service.pyx reads what they write down. Codes of the core become exceptions here and
nowhere else.
"""

import atexit
import contextlib
import logging
import os
import secrets
import socket
import threading
import time
import weakref

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport strcpy

from lbcore.addresses import bound_address, bound_socket, read_networks, start_listening
from lbcore.application import check_count, check_seconds
from lbcore.handover import handing_over
from lbcore.host import CONNECTIONS_MAX, pipes_allowed, room_for, wait_readable
from lbcore.limit_values import LimitClass
from lbcore.peer import PolicyClient
from lbcore.records import RecordLines, RecordSelection
from lbcore.settings import ServerTLS
from lbcore.source_limits import SourceLimits

from lbcore.application cimport Application
from lbcore.codes cimport REASON_DRAINED, REASON_NONE, reason_t
from lbcore.from_core cimport read_connection
from lbcore.parts.cells cimport (
    app_ref,
    lines_new,
    listener_new,
    listener_ref,
    listener_unref,
    policy_ref,
    policy_unref,
    snapshot_new,
    snapshot_unref,
    tls_unref,
)
from lbcore.parts.orders cimport order_new, order_unref
from lbcore.parts.pipes cimport PIPE_BYTES
from lbcore.parts.rings cimport (
    ring_fini,
    ring_init,
    ring_pop,
    ring_push,
    ring_wake,
)
from lbcore.parts.slab cimport slab_slot
from lbcore.parts.sockets cimport socket_keep_alive, socket_tune
from lbcore.structs cimport (
    LINGERING_MAX,
    MESSAGE_ORDER,
    MESSAGE_SOCKET,
    MESSAGE_SUBMISSION,
    ORDER_ABORT,
    ORDER_ADOPT,
    ORDER_LEAVE,
    ORDER_LIST,
    ORDER_SETTLE,
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
    snapshot_t,
    tls_generation_t,
    worker_t,
)
from lbcore.sys.atomics cimport (
    counter_read,
    gauge_read,
    word_read,
)
from lbcore.sys.linux cimport (
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    close,
    errno,
    eventfd,
    memset,
    monotonic_ns,
    pthread_join,
)
from lbcore.limits cimport RateLimitManager
from lbcore.policy_service cimport PolicyService
from lbcore.record_service cimport RecordService
from lbcore.submission_service cimport SubmissionService
from lbcore.tls.engine cimport tls_engine_t
from lbcore.tls_engines cimport engines_find
from lbcore.to_core cimport make_networks, make_policy, make_tls, new_cell_id
from lbcore.worker cimport worker_free, worker_new, worker_start

LOG = logging.getLogger("lbcore")

cdef object running = weakref.WeakSet()

THREAD_TIMEOUT = 10.0            # seconds a worker may take to carry out an order, or a thread to end
INBOX_PAUSE = 0.001              # seconds until a full inbox is tried again
DRAIN_LOOK = 0.02                # seconds between looks at how many connections are left
CLIENT_MAX = 255                 # bytes of a name given with a submitted connection
ASKS_MAX = 4096                  # questions between two looks of the policy thread


# ---- Listener ------------------------------------------------------------------------------------

cdef class Listener:
    """One listening port of an application; made by ``Engine.listen``.

    Attributes:
        application: where its connections go.
        address: ``host:port``, with the port that was taken where 0 was asked for.
        port: that port.
    """

    cdef listener_t *cell        # one reference
    cdef readonly Application application
    cdef readonly str address
    cdef readonly int port
    cdef Engine engine
    cdef object sock
    cdef object __weakref__

    def __dealloc__(self):
        listener_unref(self.cell)

    def close(self):
        """Stops listening. Connections already accepted go on, those in the kernel's queue are accepted.
        Does nothing the second time."""
        self.engine._remove(self)

    cdef shut(self):
        """Frees the port, when no worker watches it any more. Connections keep the cell and its
        descriptor, so closing ours is not enough; and this object may live on, but not its descriptor."""
        if self.cell == NULL:
            return
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        listener_unref(self.cell)
        self.cell = NULL

    def __repr__(self):
        return f"<Listener {self.application.name!r} on {self.address}>"


# ---- Engine --------------------------------------------------------------------------------------

cdef class Engine:
    """The data plane: workers that accept, judge and forward connections.

    Args:
        workers: threads, default: the CPUs this process may use.
        max_connections: connections at once, of clients that were let in and of plaintext ones;
            default: what the descriptor limit allows. The soft limit is raised to the hard one at ``start``.
        max_unauthenticated: TLS sockets at once that were not let in, or not yet, besides, and any that
            still owe a PROXY header; beyond that the oldest is evicted. Where descriptors are few, there may
            be fewer.
        handshake_timeout: seconds from accept to the end of the TLS handshake.
        authorize_timeout: seconds an authorizer may take; then the connection is refused.
        authorize_threads: sync authorizers that run at once.
        tls_engine: ``"auto"`` or a name from ``tls_engines()``.
        on_records: called with a list of Record on the engine's record thread.
        record_lines: where records go as lines of JSON instead, a RecordLines. One of the two; with neither
            there are no records and no sums.
        record_selection: of which connections there is a record, a RecordSelection; None: of all.

    Attributes:
        workers: how many there are.
        max_connections: connections at once.
        max_unauthenticated: TLS sockets at once that were not let in, or not yet.
        tls_engine: the one in use, a name from ``tls_engines()``.
        state: ``"new"``, ``"running"``, ``"stopping"``, ``"stopped"``; ``"forked"`` in a child of ``fork``.

    Thread-safety: every method may be called from any thread.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    cdef node_t *node
    cdef snapshot_t *snapshot
    cdef const tls_engine_t *tls
    cdef readonly int workers
    cdef readonly int max_connections
    cdef readonly int max_unauthenticated
    cdef readonly str tls_engine
    cdef readonly str state      # "new", "running", "stopping", "stopped", "forked"
    cdef object lock             # set-up calls, one at a time
    cdef object stop_lock        # whoever stops; a second caller waits for the first
    cdef object abort            # set: a drain ends now
    cdef bint finished           # whether all connections had ended by themselves when it stopped
    cdef int started             # workers whose thread runs
    cdef int done_fd             # where workers say that an order is carried out
    cdef PolicyService policy
    cdef RecordService records
    cdef SubmissionService submissions
    cdef dict listeners          # id -> Listener
    cdef dict applications       # id -> Application that connections were submitted to
    cdef dict app_names          # id -> name; grows with the configuration only
    cdef double authorize_timeout
    cdef int authorize_threads
    cdef int max_connections_wanted
    cdef uint64_t dropped        # records of workers that are gone
    cdef object __weakref__

    def __cinit__(self, **kwargs):
        self.node = <node_t *>lines_new(sizeof(node_t))
        if self.node == NULL:
            raise MemoryError
        self.node.number = <uint32_t>new_cell_id()
        self.node.asks.wake_fd = -1
        self.node.completions_fd = -1
        self.done_fd = -1
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
        record_lines=None,
        record_selection=None,
    ):
        if self.state is not None:
            raise RuntimeError("Engine: already made")
        if workers is None:
            workers = min(len(os.sched_getaffinity(0)), WORKERS_MAX)
        self.workers = check_count("workers", workers, 1, WORKERS_MAX)
        if max_connections is not None:
            check_count("max_connections", max_connections, 1, CONNECTIONS_MAX)
        self.max_connections = self.max_connections_wanted = max_connections or 0
        self.max_unauthenticated = check_count(
            "max_unauthenticated", max_unauthenticated, 1, 2**31 - 1)
        self.node.handshake_timeout_ns = check_seconds("handshake_timeout", handshake_timeout)
        self.node.authorize_timeout_ns = check_seconds("authorize_timeout", authorize_timeout)
        self.authorize_timeout = authorize_timeout
        self.authorize_threads = check_count("authorize_threads", authorize_threads, 1, 256)
        if not isinstance(tls_engine, str):
            raise TypeError(f"tls_engine: a name, not {tls_engine!r}")
        self.tls = engines_find(tls_engine)
        if on_records is not None and not callable(on_records):
            raise TypeError(f"on_records: a callable or None, not {on_records!r}")
        if record_lines is not None and not isinstance(record_lines, RecordLines):
            raise TypeError(f"record_lines: a RecordLines or None, not {record_lines!r}")
        if on_records is not None and record_lines is not None:
            raise ValueError("on_records, record_lines: one of the two")
        if record_selection is None:
            record_selection = RecordSelection()
        elif not isinstance(record_selection, RecordSelection):
            raise TypeError(f"record_selection: a RecordSelection or None, not {record_selection!r}")
        self.tls_engine = self.tls.name.decode()
        self.node.records_wanted = on_records is not None or record_lines is not None
        self.lock = threading.RLock()
        self.stop_lock = threading.Lock()
        self.abort = threading.Event()
        self.finished = True
        self.listeners = {}
        self.applications = {}
        self.app_names = {}
        boot = f"{time.time_ns() // 1000000:x}{secrets.randbits(16):04x}"
        strcpy(self.node.boot, <bytes>boot.encode())
        self.policy = PolicyService()
        self.records = RecordService(on_records, record_lines, record_selection, boot, self.app_names)
        self.submissions = SubmissionService(self.policy, self.records)
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
            OSError: out of descriptors or threads.
            MemoryError: out of memory.
        """
        with self.lock:
            if self.state != "new":
                raise RuntimeError(f"engine: cannot start, it is {self.state}")
            self.node.pipes_max = pipes_allowed(PIPE_BYTES)
            room = room_for(self.max_connections_wanted, self.max_unauthenticated, workers=self.workers,
                            pipes=self.node.pipes_max)
            self.max_connections = self.node.open_max = room.connections
            self.max_unauthenticated = self.node.unauthenticated_max = room.strangers
            self.state = "running"
            running.add(self)
            try:
                self._start_all()
                return
            except BaseException as error:
                problem = error
        self.stop()                      # not under the lock: whoever stops takes stop_lock first
        raise problem

    cdef _start_all(self):
        """What is started, `stop` ends, however far this came."""
        cdef int i
        cdef int problem
        self.done_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if self.done_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.submissions.start(self.node, self.tls)
        if not ring_init(&self.node.asks, ASKS_MAX, sizeof(ask_t)):
            raise OSError(errno, os.strerror(errno))
        for i in range(self.workers):
            self.node.workers[i] = worker_new(
                self.node, i, self.tls, self.snapshot, self._slots())
            if self.node.workers[i] == NULL:
                raise OSError(errno, os.strerror(errno))
            self.node.worker_count = i + 1
        for i in range(self.workers):
            problem = worker_start(self.node.workers[i])
            if problem != 0:
                raise OSError(problem, os.strerror(problem))
            self.started = i + 1
        self.policy.start(self.node, self.authorize_threads, self.authorize_timeout)
        self.records.start(self.node)

    cdef uint32_t _slots(self):
        """All there can be, should one worker have them all; the slab allocates what is used."""
        return <uint32_t>(self.max_connections + self.max_unauthenticated + LINGERING_MAX + WORKERS_MAX)

    def stop(self, drain=0.0):
        """Stops accepting, lets open connections finish for up to ``drain`` seconds, ends the rest
        (reason ``drained``) and the threads. While another thread stops it, waits for that one. Does
        nothing when it is not running.

        Returns:
            bool: whether all connections finished by themselves.

        Raises:
            RuntimeError: called by an authorizer, by ``on_records`` or by an ``on_done``, which would wait
                for itself; or one of them or a worker does not end: call it again.
        """
        if not isinstance(drain, (int, float)) or isinstance(drain, bool) or not drain >= 0:
            raise ValueError(f"drain: seconds, 0 or more, not {drain!r}")
        thread = threading.current_thread()
        if self.policy.owns(thread) or self.records.owns(thread) or self.submissions.owns(thread):
            raise RuntimeError("engine: cannot be stopped by an authorizer, by on_records or by on_done")
        with self.stop_lock:
            with self.lock:
                if not self.running:
                    return self.finished
                self.state = "stopping"
                self._stop_listening()
            self._drain(drain)
            self._end_workers()
            self._end_services()
            return self.finished

    cdef _stop_listening(self):
        if self.started and self.snapshot.listener_count > 0:
            self._publish(self._next_snapshot(0))
        for listener in self.listeners.values():
            (<Listener>listener).shut()
        self.listeners.clear()

    cdef _drain(self, drain):
        if not self.started:
            return                       # stopping was tried before, and got that far
        deadline = time.monotonic() + drain
        while self._sockets() > 0 and time.monotonic() < deadline:
            if self.abort.wait(DRAIN_LOOK):
                break
        self.finished = self._sockets() == 0

    cdef int64_t _sockets(self) noexcept:
        """Of clients: those on their way to a worker, that shake hands, and that linger, too."""
        cdef int64_t count = 0
        cdef uint32_t i
        for i in range(self.node.worker_count):
            count += gauge_read(&self.node.workers[i].load)
        return count

    cdef _end_workers(self):
        cdef int i
        with self.lock:
            if self.started and not self.finished:
                self._order(ORDER_ABORT, reason=REASON_DRAINED)
            if self.started:
                self._order(ORDER_STOP)
            for i in range(self.started):
                with nogil:
                    pthread_join(self.node.workers[i].thread, NULL)
            self.started = 0

    cdef _end_services(self):
        self.policy.close(THREAD_TIMEOUT)
        self.submissions.finish(THREAD_TIMEOUT)
        if not self.records.close(THREAD_TIMEOUT):
            raise RuntimeError(f"engine: on_records did not return within {THREAD_TIMEOUT:.0f} s")
        with self.lock:
            for i in range(WORKERS_MAX):
                if self.node.workers[i] != NULL:
                    self.dropped += counter_read(&self.node.workers[i].records.dropped)
                    worker_free(self.node.workers[i])
                    self.node.workers[i] = NULL
            self.node.worker_count = 0
            ring_fini(&self.node.asks)
            if self.done_fd >= 0:
                close(self.done_fd)
            self.done_fd = -1
            self.state = "stopped"
            running.discard(self)

    def abort_drain(self):
        """Makes a ``stop`` that drains on another thread end the connections now."""
        self.abort.set()

    cdef _check_running(self):
        if self.state != "running":
            raise RuntimeError(f"engine: not running, it is {self.state}")

    # ---- orders

    def _order(self, order_kind_t kind, reason_t reason=REASON_NONE, collect=None, uint64_t upstream_id=0,
               uint64_t deadline_ns=0):
        """Has every worker carry out one order and waits for all of them. With the lock held."""
        cdef order_t *order = order_new(kind, self.snapshot, <uint32_t>self.started, self.done_fd)
        cdef message_t message
        cdef int i
        if order == NULL:
            raise MemoryError
        order.reason = reason
        order.upstream_id = upstream_id
        order.deadline_ns = deadline_ns
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_ORDER
        message.cell = order
        try:
            deadline = time.monotonic() + THREAD_TIMEOUT
            for i in range(self.started):
                while not ring_push(&self.node.workers[i].inbox, &message):
                    ring_wake(&self.node.workers[i].inbox)
                    if time.monotonic() >= deadline:
                        for _ in range(i, self.started):
                            order_unref(order)       # those it did not reach
                        raise RuntimeError("engine: a worker does not read its inbox")
                    time.sleep(INBOX_PAUSE)      # it is full: the worker is at work on it
                ring_wake(&self.node.workers[i].inbox)
            while word_read(&order.pending) != 0:
                if not wait_readable(self.done_fd, deadline - time.monotonic()):
                    raise RuntimeError(f"engine: a worker did not answer within {THREAD_TIMEOUT:.0f} s")
                os.read(self.done_fd, 8)
            if collect is not None:
                for i in range(self.started):
                    self._collect(order, i, collect)
        finally:
            order_unref(order)

    cdef _collect(self, order_t *order, int worker, list out):
        cdef uint32_t i
        for i in range(order.info_counts[worker]):
            info = &order.infos[worker][i]
            out.append(read_connection(info, worker, self.records.boot, self.app_names))

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
        proxy_protocol_from=(),
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
            proxy_protocol_from: networks (``"10.0.0.0/8"``, ``"2001:db8::1"``; 64 at most) of the TCP load
                balancers in front. Their connections have to begin with a PROXY header, version 1 or 2,
                before TLS, or are refused (``bad_proxy_header``); the address in it is then the client's,
                for records, limits per source and the upstream. A header that says LOCAL or UNKNOWN changes
                nothing. Nobody else's header is believed: with ``tls`` it is refused (``not_tls``), with
                ``plaintext`` it is the client's data.

        Returns:
            Listener.

        Raises:
            OSError: the port cannot be opened, or a certificate file cannot be read, those of upstreams
                included.
            TypeError, ValueError: naming the argument.
            RuntimeError: the engine is not running.
        """
        cdef Listener listener
        cdef tls_generation_t *generation = NULL
        check_listen(tls, plaintext, authorize, source_limits)
        fronts = read_networks("proxy_protocol_from", proxy_protocol_from)
        application.check_usable()
        with self.lock:
            self._check_running()
            application.prepare(self.tls)
            sock = bound_socket(address)
            try:
                socket_tune(sock.fileno())
                socket_keep_alive(sock.fileno(), application.cell.keepalive_s)
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
                listener.cell.fronts = make_networks(fronts)
                listener.cell.fd = os.dup(sock.fileno())
            except BaseException:
                sock.close()
                raise
            listener.engine = self
            listener.application = application
            listener.sock = sock
            listener.address = bound_address(sock)
            listener.port = sock.getsockname()[1]
            self.listeners[listener.cell.id] = listener
            self._name(application)
            self.policy.listen(
                listener.cell.id, authorize, application.name,
                SourceLimits(source_limits) if source_limits is not None else None)
            try:
                self._watch(listener)
            except BaseException:
                with contextlib.suppress(RuntimeError):
                    self._remove(listener)
                raise
            return listener

    cdef _name(self, Application application):
        """So that records and lists can show it."""
        self.app_names[application.cell.id] = application.name

    cdef _watch(self, Listener listener):
        cdef snapshot_t *snapshot = self._next_snapshot(self.snapshot.listener_count + 1)
        cdef uint32_t i
        for i in range(self.snapshot.listener_count):
            snapshot.listeners[i] = listener_ref(self.snapshot.listeners[i])
        snapshot.listeners[self.snapshot.listener_count] = listener_ref(listener.cell)
        snapshot.listener_count = self.snapshot.listener_count + 1
        self._publish(snapshot)

    cdef _remove(self, Listener listener):
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
            listener.shut()

    # ---- submissions

    def _submit(self, Application application not None, sock, limits, tls, authorize, client, on_done):
        """``Application.submit_connection`` on this engine."""
        application.check_usable()
        check_submission(limits, tls, authorize, client, on_done)
        deadline = time.monotonic() + THREAD_TIMEOUT
        with handing_over(sock) as handed:
            while True:
                with self.lock, handed.claimed():
                    self._check_running()
                    if application.cell.id not in self.applications:
                        application.prepare(self.tls)
                        self.applications[application.cell.id] = application
                        self._name(application)
                    name = self.submissions.submit(
                        application, handed.fileno, limits, (tls, authorize), client, on_done)
                    if name is not None:
                        handed.gone()
                        return name
                if time.monotonic() >= deadline:
                    raise RuntimeError("engine: the workers do not read their inboxes")
                time.sleep(INBOX_PAUSE)          # not with the lock held: others may have to stop it

    def set_policy(self, clients):
        """Replaces the native table of clients, which refuses strangers without asking Python, for all
        TLS listeners; None: no table. Starts a new epoch: cached verdicts are forgotten, waiting
        connections are judged again, and open ones that the table no longer lets in are closed
        (``revoked_while_open``). Authorizers are not asked again about open connections.

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
            try:
                snapshot = self._next_snapshot(self.snapshot.listener_count)
            except MemoryError:
                policy_unref(policy)
                raise
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

    # ---- upstreams

    cdef _settle(self):
        """Returns when no worker can be reading a pool that was replaced before."""
        with self.lock:
            if self.running:
                self._order(ORDER_SETTLE)

    cdef _leave(self, uint64_t upstream_id, reason_t reason, uint64_t deadline_ns):
        """Connections to an upstream have to end by then; 0: they may stay after all."""
        with self.lock:
            if self.running:
                self._order(ORDER_LEAVE, reason=reason, upstream_id=upstream_id, deadline_ns=deadline_ns)

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

    def stats(self, *, applications=True):
        """One snapshot of all counters, as plain dicts. Any thread, never blocks a worker.

        Args:
            applications: whether those are in it, with their upstreams; there may be thousands.
        """
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
            theirs = {}
            if applications:
                for application in self.applications.values():
                    theirs[application.name] = application.stats()
                for listener in self.listeners.values():
                    theirs[listener.application.name] = listener.application.stats()
            return {
                "state": self.state,
                "tls_engine": self.tls_engine,
                "open": gauge_read(&self.node.open),
                "unauthenticated": gauge_read(&self.node.unauthenticated),
                "max_connections": self.max_connections,
                "max_unauthenticated": self.max_unauthenticated,
                "accept_errors": counter_read(&self.node.accept_errors),
                "log_dropped": dropped,
                "epoch": self.snapshot.epoch,
                "workers": workers,
                "applications": theirs,
            }

    def __repr__(self):
        return f"<Engine {self.state} workers={self.workers}>"


# ---- set-up details ------------------------------------------------------------------------------

def check_listen(tls, plaintext, authorize, source_limits):
    """Raises TypeError or ValueError when the arguments of ``listen`` do not go together."""
    if not isinstance(plaintext, bool):          # 'false' would be true
        raise TypeError(f"plaintext: True or False, not {plaintext!r}")
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


def check_submission(limits, tls, authorize, client, on_done):
    """Raises TypeError or ValueError when the arguments of ``submit_connection`` make no sense."""
    if limits is not None:
        if not isinstance(limits, RateLimitManager):
            raise TypeError(f"limits: a RateLimitManager or None, not {limits!r}")
        (<RateLimitManager>limits).check_usable("limits")
    if tls is not None and not isinstance(tls, ServerTLS):
        raise TypeError(f"tls: a ServerTLS or None, not {tls!r}")
    if tls is not None and not callable(authorize):
        raise TypeError("authorize: a callable; with tls nobody is let in by default")
    if tls is None and authorize is not None:
        raise ValueError("authorize: makes sense only with tls; without it nobody is identified")
    if client is not None and not isinstance(client, str):
        raise TypeError(f"client: a name or None, not {client!r}")
    if client is not None and not 1 <= len(client.encode("utf-8", "replace")) <= CLIENT_MAX:
        raise ValueError(f"client: 1 to {CLIENT_MAX} bytes")
    if on_done is not None and not callable(on_done):
        raise TypeError(f"on_done: a callable or None, not {on_done!r}")


def running_engine():
    """The one engine that runs in this process.

    Raises:
        RuntimeError: there is none, or several.
    """
    engines = [engine for engine in list(running) if engine.state == "running"]
    if len(engines) != 1:
        raise RuntimeError(
            "engine: none is running; start one" if not engines
            else f"engine: {len(engines)} are running; say which with Application(engine=)")
    return engines[0]


def settle():
    """Returns when no worker of this process can be reading an application's pool that was replaced before.

    Raises:
        RuntimeError: a worker does not answer.
    """
    for engine in list(running):
        (<Engine>engine)._settle()


def leave(uint64_t upstream_id, reason_t reason, uint64_t deadline_ns):
    """Has the connections of this process to an upstream end by `deadline_ns`, monotonic; 0: they may stay.

    Raises:
        RuntimeError: a worker does not answer.
    """
    for engine in list(running):
        (<Engine>engine)._leave(upstream_id, reason, deadline_ns)


# ---- the process ---------------------------------------------------------------------------------

def stop_all():
    """At exit: workers must not outlive the interpreter, and what ends with it must not look clean."""
    for engine in list(running):
        engine.abort_drain()
        try:
            engine.stop()
        except RuntimeError:
            LOG.exception("an engine could not be stopped")


def forget_all():
    """In a forked child: the engine's threads do not exist here."""
    for engine in list(running):
        abandon(engine)
    running.clear()


cdef abandon(Engine engine):
    """The sockets are copies and are closed, or the parent's peers would not see its FIN. The memory is
    left as it is, and so are pipes: a worker may have been changing either when the process forked.
    Locks may be held by threads that do not exist here."""
    cdef uint32_t i
    engine.state = "forked"
    engine.lock = threading.RLock()
    engine.stop_lock = threading.Lock()
    engine.policy.lock = threading.Lock()
    engine.submissions.lock = threading.Lock()
    for i in range(engine.node.worker_count):
        close_copies(engine.node.workers[i])
    engine.node.worker_count = 0
    for i in range(engine.snapshot.listener_count):
        close(engine.snapshot.listeners[i].fd)
        engine.snapshot.listeners[i].fd = -1
    for listener in engine.listeners.values():
        (<Listener>listener).sock.close()
    close(engine.node.asks.wake_fd)
    close(engine.node.completions_fd)
    close(engine.done_fd)


cdef void close_copies(worker_t *worker) noexcept nogil:
    cdef message_t message
    cdef conn_t *conn
    cdef uint32_t i
    for i in range(worker.slab.next_index):
        conn = slab_slot(&worker.slab, i)
        if conn.in_use and conn.client.fd >= 0:
            close(conn.client.fd)
        if conn.in_use and conn.upstream.fd >= 0:
            close(conn.upstream.fd)
    while ring_pop(&worker.inbox, &message):
        if message.kind == MESSAGE_SOCKET or message.kind == MESSAGE_SUBMISSION:
            close(message.fd)
    close(worker.epoll_fd)
    close(worker.inbox.wake_fd)
    close(worker.records.wake_fd)


atexit.register(stop_all)
os.register_at_fork(after_in_child=forget_all)
