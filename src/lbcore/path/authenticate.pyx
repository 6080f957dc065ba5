"""Stage 3, authenticate: from a finished handshake to a serial number.

The TLS library has verified signature, dates and the client's possession of the key; of a certificate that
is known the last only, and `verified` in path/handshake.pyx looked at its dates. Left to judge, on the first
sight of a certificate: that the verified chain is the leaf and the configured CA and nothing between (a
sub-CA could mint the same serial), that its purpose is client authentication, and that its key is not too
weak. A certificate whose verdict is cached under the same TLS generation passed all that.
Whether the CA has revoked it is looked up every time: the lists may have ended meanwhile.
"""

from lbcore.codes cimport REASON_NO_CERTIFICATE, REASON_NONE, STEP_CLOSE, STEP_NEXT
from lbcore.parts.cells cimport verdict_ref
from lbcore.parts.der cimport der_serial
from lbcore.parts.revoked cimport revoked_judge
from lbcore.parts.strangers cimport stranger_renew
from lbcore.parts.verdicts cimport verdicts_find
from lbcore.structs cimport verdict_t
from lbcore.sys.linux cimport wall_ns
from lbcore.tls.engine cimport tls_peer_t


cdef step_t authenticate_step(conn_t *conn, worker_t *worker) noexcept nogil:
    cdef tls_peer_t peer
    cdef verdict_t *cached
    if conn.tls == NULL:
        return STEP_NEXT
    if not worker.tls_engine.peer(conn.client.tls, &peer):
        conn.reason = REASON_NO_CERTIFICATE
        return STEP_CLOSE
    conn.reason = der_serial(peer.leaf, peer.leaf_length, conn.serial, &conn.serial_length)
    if conn.reason != REASON_NONE:
        return STEP_CLOSE
    if conn.tls.revoked != NULL:
        conn.reason = revoked_judge(conn.tls.revoked, conn.serial, conn.serial_length, wall_ns())
        if conn.reason != REASON_NONE:
            return STEP_CLOSE
    cached = verdicts_find(worker, conn.listener.id, conn.tls.id, peer.leaf, <unsigned int>peer.leaf_length)
    if cached != NULL:
        conn.verdict = verdict_ref(cached)
    else:
        conn.reason = worker.tls_engine.judge_peer(conn.client.tls, conn.tls.config)
        if conn.reason != REASON_NONE:
            return STEP_CLOSE
    stranger_renew(worker, conn)
    return STEP_NEXT
