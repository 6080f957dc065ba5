"""The two legs of a connection are alike: a descriptor, perhaps TLS, and bytes that wait.

A leg that refuses a write is marked broken and never written to again; what the other side sent before
can still be read from it. One thread: the worker of the connection.
"""

from libc.stdint cimport uint8_t, uint32_t

from lbcore.parts.chunks cimport chunk_append, chunk_give
from lbcore.structs cimport LEG_BROKEN, LEG_NOTIFIED, LEG_WRITABLE, SCRATCH_BYTES
from lbcore.sys.linux cimport EAGAIN, EINTR, ENOMEM, EPIPE, EPROTO, MSG_NOSIGNAL, errno, send
from lbcore.tls.engine cimport TLS_DONE


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


cdef int leg_put_plain(worker_t *worker, leg_t *leg, const uint8_t *plain, size_t length) noexcept nogil:
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
