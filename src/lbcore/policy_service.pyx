"""Reads what workers ask, has it answered off the data path, and broadcasts each answer.

The thread here never waits for an authorizer, only for questions. A question that is already under way
is not put twice: whoever waits gets the same answer. Every answer goes to all workers, whose private
caches then settle the next connection of that client without asking.

Nothing that goes wrong with one question may cost another one its answer.
"""

import logging
import threading

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free

from lbcore.authorizers import AuthorizerPool, Question
from lbcore.codes import AUTHORIZE_REASONS, REASONS
from lbcore.host import wait_readable
from lbcore.peer import PeerCertificate, Verdict
from lbcore.source_limits import REMEMBERED

from lbcore.codes cimport REASON_AUTHZ_ERROR, REASON_CONCURRENT, REASON_NONE, reason_t
from lbcore.from_core cimport show_address, show_serial
from lbcore.limits cimport RateLimitManager
from lbcore.parts.cells cimport limiter_ref, verdict_new, verdict_ref, verdict_unref
from lbcore.parts.rings cimport ring_awake, ring_may_sleep, ring_pop, ring_push, ring_wake
from lbcore.parts.verdicts cimport verdict_hash
from lbcore.structs cimport MESSAGE_VERDICT, ask_t, message_t, verdict_t
from lbcore.sys.atomics cimport word_write
from lbcore.sys.linux cimport memcpy, memset, monotonic_ns
from lbcore.to_core cimport make_name

LOG = logging.getLogger("lbcore.authorize")

QUESTIONS_MAX = 4096             # under way; beyond that connections are left to their deadline
SHOWN = 200                      # characters of a wrong answer in the log


def is_usable(limits):
    """Whether it can be a Verdict's limits; one whose `__init__` was skipped would admit everybody."""
    if limits is None:
        return True
    if not isinstance(limits, RateLimitManager):
        return False
    return limits.name is not None and limits.clock is None


cdef class PolicyService:
    """Made with the engine, started and closed by it.

    Thread-safety: `listen`, `owns` and the answers of authorizers may come on any thread.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.listeners = {}
        self.questions = {}

    cdef start(self, node_t *node, int threads, double timeout):
        self.node = node
        self.pool = AuthorizerPool(threads, timeout)
        self.thread = threading.Thread(target=self._serve, name="lbcore-policy", daemon=True)
        self.thread.start()

    def listen(self, listener_id, authorize, application, source_limits):
        """From now on questions of this listener are answered. For good: a connection that was accepted
        before its listener closed may still ask."""
        with self.lock:
            self.listeners[listener_id] = (authorize, application, source_limits)

    def owns(self, thread):
        """Whether it is the service's own thread or one that runs authorizers."""
        return thread is self.thread or (self.pool is not None and self.pool.owns(thread))

    cdef close(self, double timeout):
        """After the workers have ended. Authorizers still at work find nobody to tell."""
        with self.lock:
            self.closed = True
        if self.thread is None:
            return
        word_write(&self.node.asks.sleeping, 1)
        ring_wake(&self.node.asks)
        self.thread.join(timeout)
        self.pool.close()
        self._forget_asks()
        self.listeners.clear()

    cdef _forget_asks(self):
        cdef ask_t ask
        while ring_pop(&self.node.asks, &ask):
            free(ask.key)

    # ---- questions

    def _serve(self):
        cdef ask_t ask
        while not self.closed:
            while ring_pop(&self.node.asks, &ask):
                self._take(&ask)
            if ring_may_sleep(&self.node.asks):
                wait_readable(self.node.asks.wake_fd, None)
                ring_awake(&self.node.asks)

    cdef _take(self, ask_t *ask):
        cdef bytes key = (<const char *>ask.key)[:ask.key_length]
        free(ask.key)
        name = (ask.listener_id, ask.epoch, ask.tls_id, key)
        try:
            self._put(name, ask)
        except Exception:
            LOG.exception("a question could not be put")
            self._answer(name, None)

    cdef _put(self, tuple name, ask_t *ask):
        deadline = ask.deadline_ns / 1e9
        with self.lock:
            authorize, application, source_limits = self.listeners[name[0]]
            question = self.questions.get(name)
            if question is not None:
                question.deadline = max(question.deadline, deadline)
                return
            if source_limits is None:
                if len(self.questions) >= QUESTIONS_MAX:
                    return
                peer = PeerCertificate(
                    name[3], show_serial(ask.serial, ask.serial_length), show_address(&ask.source))
                question = Question(
                    authorize, peer, application, deadline,
                    lambda verdict: self._answer(name, verdict),
                    lambda: self._forget(name),
                )
                self.questions[name] = question
        if source_limits is None:
            self.pool.submit(question)
        else:
            self._answer_source(name, source_limits)

    def _forget(self, name):
        """A question nobody waits for any more is dropped, unless somebody came meanwhile."""
        cdef uint64_t now = monotonic_ns()
        with self.lock:
            question = self.questions.get(name)
            if question is not None and question.deadline > now / 1e9:
                return False
            self.questions.pop(name, None)
            return True

    # ---- answers

    def _answer_source(self, name, source_limits):
        manager = source_limits.manager_for(name[3])
        if manager is None:
            self._broadcast(name, None, None, REASON_CONCURRENT, 0.0)
        else:
            self._broadcast(name, None, manager, REASON_NONE, REMEMBERED)

    def _answer(self, name, verdict):
        """An authorizer's answer, on whichever thread it ran; None: it failed and that was logged."""
        with self.lock:
            self.questions.pop(name, None)
        try:
            self._judge(name, verdict)
        except Exception:
            LOG.exception("an answer could not be passed on")
            self._broadcast(name, None, None, REASON_AUTHZ_ERROR, 0.0)

    def _judge(self, name, verdict):
        if isinstance(verdict, Verdict):
            if not is_usable(verdict.limits):
                LOG.error("Verdict.limits: a RateLimitManager or None, not %.*r", SHOWN, verdict.limits)
            elif verdict.allow:
                self._broadcast(name, verdict.client, verdict.limits, REASON_NONE, verdict.ttl)
                return
            elif verdict.reason in AUTHORIZE_REASONS:
                self._broadcast(name, verdict.client, None, REASONS.index(verdict.reason), verdict.ttl)
                return
            else:
                LOG.error(
                    "Verdict.reason: one of %s, not %.*r", ", ".join(sorted(AUTHORIZE_REASONS)), SHOWN,
                    verdict.reason)
        elif verdict is not None:
            LOG.error("an authorizer answers a Verdict, not %s", type(verdict).__name__)
        self._broadcast(name, None, None, REASON_AUTHZ_ERROR, 0.0)

    def _broadcast(self, name, client, limits, reason_t reason, ttl):
        """Sends one answer to every worker; an inbox that is full leaves its connections to time out."""
        cdef bytes key = name[3]
        cdef verdict_t *verdict = verdict_new(<uint32_t>len(key))
        if verdict == NULL:
            raise MemoryError
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
            with self.lock:
                if not self.closed:
                    self._post(verdict)
        finally:
            verdict_unref(verdict)

    cdef _post(self, verdict_t *verdict):
        cdef message_t message
        cdef uint32_t i
        memset(&message, 0, sizeof(message))
        message.kind = MESSAGE_VERDICT
        message.cell = verdict
        for i in range(self.node.worker_count):
            verdict_ref(verdict)
            if ring_push(&self.node.workers[i].inbox, &message):
                ring_wake(&self.node.workers[i].inbox)
            else:
                verdict_unref(verdict)
