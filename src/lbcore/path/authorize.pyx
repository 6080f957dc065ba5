"""Stage 4, authorize: may this client use this application?

Three answers, cheapest first: the native table refuses strangers; a cached verdict settles a client
that came before; otherwise the connection is parked, the question goes to the policy thread, and the
answer comes back through the inbox. Deny by default: no answer in time is a refusal, and so is an
answer of an older policy.

A plaintext listener has no certificate; if it has limits, its clients are known by source address, and
the question is the same with the address as the key.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from lbcore.codes cimport REASON_AUTHZ_TIMEOUT, REASON_NONE, STEP_CLOSE, STEP_NEXT, STEP_WAIT, reason_t
from lbcore.parts.cells cimport name_ref, name_unref, verdict_ref
from lbcore.parts.early cimport early_watch
from lbcore.parts.parking cimport parking_enter, parking_leave
from lbcore.parts.policy cimport policy_judge
from lbcore.parts.rings cimport ring_push, ring_wake
from lbcore.parts.strangers cimport known_enter
from lbcore.parts.timers cimport timer_arm, timer_disarm
from lbcore.parts.verdicts cimport verdicts_find
from lbcore.structs cimport ask_t, name_t
from lbcore.sys.linux cimport AF_INET6, memcmp, memcpy, sockaddr_in
from lbcore.tls.engine cimport tls_peer_t


cdef step_t authorize_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef name_t *client = NULL
    cdef const uint8_t *key
    cdef uint32_t length = 0
    cdef verdict_t *cached
    if not conn.listener.asks:
        return STEP_NEXT
    if conn.expired:
        conn.expired = False
        return refuse(conn, REASON_AUTHZ_TIMEOUT)
    if conn.listener.uses_policy and worker.snapshot.policy != NULL:
        conn.reason = policy_judge(
            worker.snapshot.policy, conn.serial, conn.serial_length, conn.app.name, &client)
        if client != NULL and conn.client_name == NULL:
            conn.client_name = name_ref(client)
        if conn.reason != REASON_NONE:
            return STEP_CLOSE
    if conn.verdict == NULL:
        key = verdict_key(conn, worker, &length)
        cached = verdicts_find(worker, conn.listener.id, tls_id(conn), key, length)
        if cached == NULL:
            return park(conn, worker, key, length)
        conn.verdict = verdict_ref(cached)
    return settle(conn, worker)


cdef step_t refuse(conn_t *conn, reason_t reason) noexcept nogil:
    conn.reason = reason
    return STEP_CLOSE


cdef step_t settle(conn_t *conn, worker_t *worker) noexcept nogil:
    if conn.parked:
        parking_leave(worker, conn)
        timer_disarm(&worker.wheel, conn)
    if conn.verdict.client != NULL:
        name_unref(conn.client_name)
        conn.client_name = name_ref(conn.verdict.client)
    if conn.verdict.reason != REASON_NONE:
        return refuse(conn, conn.verdict.reason)
    return STEP_NEXT if known_enter(worker, conn) else STEP_CLOSE


cdef uint64_t tls_id(conn_t *conn) noexcept nogil:
    return conn.tls.id if conn.tls != NULL else 0


cdef const uint8_t *verdict_key(conn_t *conn, worker_t *worker, uint32_t *out_length) noexcept nogil:
    """The leaf certificate, or the source address. Borrowed from the connection."""
    cdef tls_peer_t peer
    if conn.client.tls == NULL:
        if conn.source.sin6_family == AF_INET6:
            out_length[0] = 16
            return conn.source.sin6_addr.s6_addr
        out_length[0] = 4
        return <const uint8_t *>&(<sockaddr_in *>&conn.source).sin_addr
    if not worker.tls_engine.peer(conn.client.tls, &peer):
        out_length[0] = 0
        return NULL
    out_length[0] = <uint32_t>peer.leaf_length
    return peer.leaf


cdef step_t park(conn_t *conn, worker_t *worker, const uint8_t *key, uint32_t length) noexcept nogil:
    if not conn.parked:
        parking_enter(worker, conn)
        timer_arm(&worker.wheel, conn, worker.now_ns + worker.node.authorize_timeout_ns)
        early_watch(conn, worker)
    # With the ring full the question is put again when an answer comes; the deadline runs on.
    if not conn.asked:
        conn.asked = ask(conn, worker, key, length)
    return STEP_WAIT


cdef bint ask(conn_t *conn, worker_t *worker, const uint8_t *key, uint32_t length) noexcept nogil:
    cdef ask_t question
    question.key = <uint8_t *>malloc(length + 1)
    if question.key == NULL:
        return False
    memcpy(question.key, key, length)
    question.key_length = length
    question.listener_id = conn.listener.id
    question.epoch = worker.snapshot.epoch
    question.tls_id = tls_id(conn)
    question.deadline_ns = conn.deadline_ns
    memcpy(question.serial, conn.serial, sizeof(question.serial))
    question.serial_length = conn.serial_length
    question.source = conn.source
    if not ring_push(&worker.node.asks, &question):
        free(question.key)
        return False
    ring_wake(&worker.node.asks)
    return True


cdef bint authorize_matches(conn_t *conn, worker_t *worker, verdict_t *verdict) noexcept nogil:
    cdef uint32_t length = 0
    cdef const uint8_t *key
    if verdict.listener_id != conn.listener.id or verdict.tls_id != tls_id(conn):
        return False
    if verdict.epoch != worker.snapshot.epoch:
        return False
    key = verdict_key(conn, worker, &length)
    return length == verdict.key_length and memcmp(key, verdict.key, length) == 0
