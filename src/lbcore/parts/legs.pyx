"""The two legs of a connection are alike: a descriptor, perhaps TLS, and bytes that wait.

A leg that refuses a write is marked broken and never written to again; what the other side sent before
can still be read from it. One thread: the worker of the connection.

Records without data (key updates, empty ones, alerts that are only warnings) cost a peer thirty bytes and
us the work of a record and perhaps an answer as long, 3 to 20 microseconds; s2n even takes three thousand
key updates in one. So there may be BARREN_MAX bytes of them in a row, some 150 key updates, and in one batch
a 32nd of it more: nobody who sends data comes near, and what one wake-up spends on them is bounded. BoringSSL
draws the line at 32 updates (kMaxKeyUpdates), as OpenSSL once did, and does today for empty records.

A batch goes out in one send, which wakes the peer least often: against pieces of two records that saves a
twentieth to a tenth of a transfer. Under BBR, which lets bytes out by timers, it is the other way round:
pieces, each sent before the next one is encrypted, save a fifth (bench/NOTES.md).
"""

from libc.stdint cimport uint8_t, uint32_t

from lbcore.codes cimport REASON_ERROR
from lbcore.parts.chunks cimport chunk_append, chunk_give
from lbcore.structs cimport (
    ANSWERS_MAX,
    LEG_BROKEN,
    LEG_CLEAN,
    LEG_CUT,
    LEG_ENDED,
    LEG_GARBLED,
    LEG_NOTIFIED,
    LEG_PIECEMEAL,
    LEG_WRITABLE,
    SCRATCH_BYTES,
)
from lbcore.sys.linux cimport EAGAIN, EINTR, ENOMEM, EPIPE, EPROTO, MSG_NOSIGNAL, errno, send
from lbcore.tls.engine cimport TLS_CLOSED, TLS_DONE, TLS_WANT_READ, tls_failure_t, tls_io_t

cdef enum:
    PIECE_MAX = 32768
    BARREN_MAX = 4096
    BARREN_SHARE = 32            # of a batch
    BARREN_UNBOUNDED = 0xffffffff


cdef int leg_put(worker_t *worker, leg_t *leg, const uint8_t *data, size_t length) noexcept nogil:
    cdef ssize_t sent = 0
    if leg.flags & LEG_BROKEN:
        return EPIPE
    if leg.out == NULL:
        sent = send_some(leg, data, length)
        if sent < 0:
            return leg_broken(worker, leg)
        if <size_t>sent == length:
            return 0
    if not chunk_append(&worker.chunks, &leg.out, data + sent, length - sent):
        return ENOMEM
    return 0


cdef int leg_flush(worker_t *worker, leg_t *leg) noexcept nogil:
    cdef ssize_t sent
    leg.flags &= ~<uint32_t>LEG_WRITABLE
    if leg.out == NULL:
        return 0
    if leg.flags & LEG_BROKEN:
        return EPIPE
    sent = send_some(leg, leg.out.data + leg.out.start, leg.out.length)
    if sent < 0:
        return leg_broken(worker, leg)
    leg.out.start += <uint32_t>sent
    leg.out.length -= <uint32_t>sent
    if leg.out.length == 0:
        leg_drop(worker, leg)
    return 0


cdef ssize_t send_some(leg_t *leg, const uint8_t *data, size_t length) noexcept nogil:
    """Bytes the kernel took, 0 when it is full, -1 when the connection is broken."""
    cdef ssize_t sent = send(leg.fd, data, length, MSG_NOSIGNAL)
    while sent < 0 and errno == EINTR:
        sent = send(leg.fd, data, length, MSG_NOSIGNAL)
    if sent < 0 and errno == EAGAIN:
        return 0
    return sent


cdef int leg_broken(worker_t *worker, leg_t *leg) noexcept nogil:
    cdef int problem = errno
    leg.flags |= LEG_BROKEN
    leg_drop(worker, leg)
    return problem


cdef int leg_put_payload(worker_t *worker, leg_t *leg, const uint8_t *data, size_t length) noexcept nogil:
    cdef size_t piece_max = <size_t>PIECE_MAX if leg.flags & LEG_PIECEMEAL else length
    cdef size_t piece
    cdef int problem = 0
    while length > 0 and problem == 0:
        piece = length if length < piece_max else piece_max
        if leg.tls != NULL:
            problem = leg_encrypt(worker, leg, data, piece)
        else:
            problem = leg_put(worker, leg, data, piece)
        data += piece
        length -= piece
    return problem


cdef int leg_encrypt(worker_t *worker, leg_t *leg, const uint8_t *plain, size_t length) noexcept nogil:
    leg_io(worker, NULL, 0)
    if worker.tls_engine.send(leg.tls, plain, length) != TLS_DONE:
        leg.flags |= LEG_BROKEN
        return EPROTO
    return leg_put(worker, leg, worker.io.output, worker.io.output_at)


cdef int leg_notify(worker_t *worker, leg_t *leg) noexcept nogil:
    leg.flags |= LEG_NOTIFIED
    leg_io(worker, NULL, 0)
    if worker.tls_engine.shutdown_send(leg.tls) != TLS_DONE:
        return EPROTO
    return leg_put(worker, leg, worker.io.output, worker.io.output_at)


cdef int leg_decrypt(worker_t *worker, leg_t *leg, size_t *out_used, const char **out_problem) noexcept nogil:
    cdef tls_io_t *io = &worker.io
    cdef size_t used = 0
    cdef int problem = 0
    cdef ssize_t got
    cdef tls_failure_t failure
    io.barren = leg.barren
    io.barren_before = leg.barren_before
    io.cut = leg.flags & LEG_CUT != 0
    io.barren_max = BARREN_MAX + <uint32_t>((io.input_length - io.input_at) // BARREN_SHARE)
    while True:
        got = worker.tls_engine.recv(leg.tls, worker.scratch_plain + used, SCRATCH_BYTES - used)
        if got <= 0:
            break
        used += <size_t>got
        io.barren = io.barren_before     # that record had data
    leg.barren = io.barren if used == 0 else 0
    leg.barren_before = io.barren_before if used == 0 else 0
    leg.flags = leg.flags | LEG_CUT if io.cut else leg.flags & ~<uint32_t>LEG_CUT
    if got == TLS_CLOSED:
        leg.flags |= LEG_ENDED | LEG_CLEAN
    elif got != TLS_WANT_READ:
        worker.tls_engine.failure(leg.tls, &failure)
        cannot_read(leg, failure.name, out_problem)
        problem = ENOMEM if failure.reason == REASON_ERROR else 0
    elif io.input_at < io.input_length:
        cannot_read(leg, b"too many records without data", out_problem)
    out_used[0] = used
    return answer(worker, leg, out_problem) if problem == 0 else problem


cdef int answer(worker_t *worker, leg_t *leg, const char **out_problem) noexcept nogil:
    """Sends what TLS itself has to say. A peer that asks for key updates and never reads fills what a leg
    may owe, but no single read does: an update that is answered is as long as the answer, and ANSWERS_MAX is
    more than a batch may bring (BARREN_MAX). That a broken leg takes nothing is no news. 0 or ENOMEM."""
    cdef size_t owed = leg.out.length if leg.out != NULL else 0
    if worker.io.output_at == 0:
        return 0
    if owed > 0 and (worker.io.output_at > ANSWERS_MAX or owed + worker.io.output_at > SCRATCH_BYTES):
        cannot_read(leg, b"key updates are asked for and not read", out_problem)
        return 0
    return ENOMEM if leg_put(worker, leg, worker.io.output, worker.io.output_at) == ENOMEM else 0


cdef void cannot_read(leg_t *leg, const char *problem, const char **out_problem) noexcept nogil:
    leg.flags = (leg.flags | LEG_ENDED | LEG_GARBLED) & ~<uint32_t>LEG_CLEAN
    out_problem[0] = problem


cdef void leg_drop(worker_t *worker, leg_t *leg) noexcept nogil:
    if leg.out != NULL:
        chunk_give(&worker.chunks, leg.out)
        leg.out = NULL


cdef void leg_io(worker_t *worker, const uint8_t *data, size_t length) noexcept nogil:
    worker.io.input = data
    worker.io.input_length = length
    worker.io.input_at = 0
    worker.io.output = worker.scratch_out
    worker.io.output_room = SCRATCH_BYTES
    worker.io.output_at = 0
    worker.io.barren = 0
    worker.io.barren_max = BARREN_UNBOUNDED
