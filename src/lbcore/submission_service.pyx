"""Takes sockets from Python to the workers, and tells how their connections ended.

A door is what a listener is without a socket: an application with its TLS settings and its authorizer. Doors
are kept: TLS settings are expensive to load, and an authorizer's answers are remembered by door.
"""

import logging
import os
import threading

from libc.stdint cimport uint32_t, uint64_t

from lbcore.host import wait_readable

from lbcore.from_core cimport read_record
from lbcore.limits cimport RateLimitManager
from lbcore.parts.cells cimport app_ref, limiter_ref, listener_new, listener_ref, listener_unref
from lbcore.parts.rings cimport ring_push, ring_wake
from lbcore.parts.sockets cimport socket_keep_alive, socket_tune
from lbcore.parts.submissions cimport (
    completion_free,
    completion_new,
    completions_take,
    submission_free,
    submission_new,
)
from lbcore.structs cimport MESSAGE_SUBMISSION, submission_t, worker_t
from lbcore.sys.atomics cimport counter_next, gauge_give, gauge_read, gauge_take
from lbcore.sys.linux cimport (
    AF_INET,
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    close,
    errno,
    eventfd,
    getpeername,
    memset,
    sockaddr,
    socklen_t,
    write,
)
from lbcore.to_core cimport make_name, make_tls, new_cell_id

LOG = logging.getLogger("lbcore")

DOORS_MAX = 1024


cdef class Door:
    """One reference to a listener without a socket, and to what its key was made of: an id is unique only
    while the object lives."""

    cdef listener_t *cell
    cdef object tls
    cdef object authorize

    def __dealloc__(self):
        listener_unref(self.cell)


cdef class SubmissionService:
    """Made with the engine, started and closed by it.

    Thread-safety: `submit` under the engine's lock. Completions come on a thread of the service, which is
    there once somebody has asked for one.
    """

    def __init__(self, PolicyService policy, RecordService records):
        self.policy = policy
        self.records = records
        self.doors = {}
        self.waiting = {}
        self.lock = threading.Lock()

    cdef start(self, node_t *node, const tls_engine_t *tls):
        self.tls = tls
        node.completions_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
        if node.completions_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.node = node

    def owns(self, thread):
        """Whether it is the service's own thread."""
        return self.thread is not None and thread is self.thread

    cdef finish(self, double timeout):
        """After the workers have ended: tells what is left to tell."""
        cdef uint64_t one = 1
        if self.node == NULL:
            return
        self.closing = True
        if self.thread is not None:
            write(self.node.completions_fd, &one, sizeof(one))
            self.thread.join(timeout)
            if self.thread.is_alive():
                raise RuntimeError(f"engine: an on_done did not return within {timeout:.0f} s")
        self.doors.clear()
        close(self.node.completions_fd)
        self.node.completions_fd = -1
        self.node = NULL

    # ---- in

    cdef str submit(self, Application application, int fd, object limits, object door_key,
                    object client, object on_done):
        """The id of the connection, or None: all inboxes are full. The descriptor is the workers' once this
        has returned an id."""
        cdef message_t message
        cdef submission_t *submission = submission_new()
        cdef int worker
        if submission == NULL:
            raise MemoryError
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_SUBMISSION
        message.fd = fd
        message.cell = submission
        blocking = os.get_blocking(fd)
        try:
            read_source(&message)
            submission.door = listener_ref(self._door(application, door_key[0], door_key[1]))
            if limits is not None:
                submission.limiter = limiter_ref((<RateLimitManager>limits).cell)
            if client is not None:
                submission.client = make_name(client)
            if on_done is not None:
                submission.completion = completion_new()
                if submission.completion == NULL:
                    raise MemoryError
                self._listen()
            submission.id = counter_next(&self.node.next_id) + 1
            name = submission.id
            os.set_blocking(fd, False)
            socket_tune(fd)
            socket_keep_alive(fd, application.cell.keepalive_s)
            worker = self._send(&message, on_done)
        except BaseException:
            submission_free(submission)
            os.set_blocking(fd, blocking)
            raise
        if worker < 0:
            submission_free(submission)
            os.set_blocking(fd, blocking)
            return None
        return f"{self.records.boot}-{worker}-{name}"

    cdef int _send(self, message_t *message, object on_done) except -2:
        """To the least loaded worker, or whoever has room. Its number; -1: nobody has."""
        cdef uint32_t i
        cdef worker_t *worker
        cdef uint64_t name = (<submission_t *>message.cell).id
        loads = sorted((gauge_read(&self.node.workers[i].load), i) for i in range(self.node.worker_count))
        for _, i in loads:
            worker = self.node.workers[i]
            if on_done is not None:
                with self.lock:          # before the worker can have it: it may end at once
                    self.waiting[name] = on_done
            gauge_take(&worker.load)
            if ring_push(&worker.inbox, message):
                ring_wake(&worker.inbox)
                return <int>i
            gauge_give(&worker.load)
            if on_done is not None:
                with self.lock:
                    del self.waiting[name]
        return -1

    cdef listener_t *_door(self, Application application, object tls, object authorize) except NULL:
        cdef Door door
        key = (application.cell.id, id(tls), id(authorize))
        door = self.doors.get(key)
        if door is None:
            if len(self.doors) >= DOORS_MAX:
                raise RuntimeError(
                    f"tls: more than {DOORS_MAX} different ServerTLS or authorizers; use the same again")
            door = Door()
            door.tls = tls
            door.authorize = authorize
            door.cell = listener_new()
            if door.cell == NULL:
                raise MemoryError
            door.cell.id = new_cell_id()
            door.cell.app = app_ref(application.cell)
            if tls is not None:
                door.cell.tls = make_tls(self.tls, tls)
                door.cell.asks = True
                door.cell.uses_policy = True
                self.policy.listen(door.cell.id, authorize, application.name, None)
            self.doors[key] = door
        return door.cell

    # ---- and back

    def _listen(self):
        if self.thread is None:
            self.thread = threading.Thread(target=self._serve, name="lbcore-completions", daemon=True)
            self.thread.start()

    def _serve(self):
        cdef completion_t *completion
        cdef completion_t *following
        while True:
            closing = self.closing
            completion = completions_take(self.node)
            while completion != NULL:
                following = completion.next
                self._tell(completion)
                completion = following
            if closing:
                return
            if wait_readable(self.node.completions_fd, None):
                os.read(self.node.completions_fd, 8)

    cdef _tell(self, completion_t *completion):
        with self.lock:
            on_done = self.waiting.pop(completion.record.id, None)
        try:
            on_done(read_record(&completion.record, self.records.boot, self.records.app_names))
        except BaseException:            # SystemExit too: others wait for theirs
            LOG.exception("on_done failed")
        finally:
            completion_free(completion)


cdef read_source(message_t *message):
    cdef socklen_t length = sizeof(message.source)
    if getpeername(message.fd, <sockaddr *>&message.source, &length) != 0:
        memset(&message.source, 0, sizeof(message.source))
        message.source.sin6_family = AF_INET     # its peer has reset it already
