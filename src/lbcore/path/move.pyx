"""Moving one batch: decrypt, encrypt, copy or splice.

    TLS -> plain     recv, decrypt every record in it, send
    plain -> TLS     recv, encrypt, send
    TLS -> TLS       both
    plain -> plain   recv and send while it is little; in bulk, splice through a borrowed pipe

The batch starts at 16 KiB and doubles while reads fill it, so a chat costs little cache and a transfer
few system calls. An end of the stream that comes with the bytes is noted, not acted upon: forward does.

What a direction holds, in a chunk or in a pipe, leaves the other one what fits into the largest chunk that
may still be beside it, and chunks count with their whole room. So a connection stays under 256 KiB whatever
its peers do: 208 and 26, or twice 104.

Splice: EAGAIN from the socket side means "socket empty" or "pipe full by slots" (a pipe has a slot per
page, and some 23 kB of small segments fill it), so the pipe's own byte count decides what to do, and a
pipe with bytes in it stays with its connection, until that has been quiet for a while: then the bytes
move to a chunk, because pipes are few and a peer that stalls must not keep them from others.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from lbcore.parts.chunks cimport chunk_room, chunk_room_beside, chunk_take
from lbcore.parts.legs cimport leg_decrypt, leg_io, leg_put_payload
from lbcore.parts.pipes cimport pipe_give, pipe_take
from lbcore.parts.sockets cimport socket_is_paced
from lbcore.structs cimport (
    ANSWERS_MAX,
    BATCH_MAX,
    BATCH_MIN,
    LEG_BROKEN,
    LEG_BULK,
    LEG_CLEAN,
    LEG_ENDED,
    LEG_PIECEMEAL,
    LEG_READABLE,
    RECORD_MAX,
    SCRATCH_BYTES,
    SEALING_MAX,
    SEALING_SHARE,
    chunk_t,
    pipe_t,
)
from lbcore.sys.linux cimport (
    EAGAIN,
    EINTR,
    EIO,
    SPLICE_F_MOVE,
    SPLICE_F_NONBLOCK,
    errno,
    read,
    recv,
    splice,
)

cdef enum:
    BULK_MIN = 65536             # a read of this size is the beginning of a bulk, and worth a pipe
    CHAT_MAX = 16384             # with less in a wake-up the bulk is over
    SPLICE_BUDGET = 524288       # bytes a wake-up


cdef int move_bytes(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target) noexcept nogil:
    if source.pipe != NULL:
        return splice_through(conn, worker, source, target)
    if source.flags & LEG_BULK and source.tls == NULL and target.tls == NULL:
        source.pipe = pipe_take(worker)
        if source.pipe != NULL:
            return splice_through(conn, worker, source, target)
    return copy(conn, worker, source, target)


cdef uint32_t move_room(leg_t *source, leg_t *target) noexcept nogil:
    """TLS adds the part of a record from before where it decrypts, headers and tags where it encrypts."""
    cdef uint32_t room = chunk_room_beside(held_by_other(source, target))
    if source.pipe != NULL:
        return room
    if target.tls != NULL:
        room -= room // SEALING_SHARE + SEALING_MAX
    if source.tls != NULL:
        room -= RECORD_MAX
    return room if room < <uint32_t>BATCH_MAX else BATCH_MAX


cdef uint32_t held_by_other(leg_t *source, leg_t *target) noexcept nogil:
    """What the other direction holds: a chunk, or a pipe whose bytes may go to one. What TLS answers to what
    is read now may make the chunk grow."""
    cdef uint32_t grown
    if source.out != NULL:
        grown = source.out.length + <uint32_t>ANSWERS_MAX if source.tls != NULL else 0
        if grown <= source.out.room:
            return source.out.room
        return chunk_room(grown if grown < <uint32_t>SCRATCH_BYTES else SCRATCH_BYTES)
    return chunk_room(target.pipe.length) if target.pipe != NULL else 0


cdef uint32_t allowed(conn_t *conn, leg_t *source, uint32_t room) noexcept nogil:
    """`room`, within the leg's lease (parts/pacing.pyx)."""
    return <uint32_t>source.lease if conn.paced and source.lease < room else room


cdef uint32_t batch_room(conn_t *conn, leg_t *source, leg_t *target) noexcept nogil:
    """How much to read: the leg's batch, within what it may hold."""
    cdef uint32_t room = move_room(source, target)
    if source.batch < BATCH_MIN:
        source.batch = BATCH_MIN
    return allowed(conn, source, source.batch if source.batch < room else room)


cdef int copy(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target) noexcept nogil:
    cdef uint32_t room = batch_room(conn, source, target)
    cdef ssize_t got
    source.flags &= ~<uint32_t>LEG_READABLE
    got = recv(source.fd, worker.scratch_in, room, 0)
    if got < 0:
        if errno == EAGAIN or errno == EINTR:
            return 0
        return broken(source)
    if got == 0:
        source.flags |= LEG_ENDED
        if source.tls == NULL:
            source.flags |= LEG_CLEAN
        return 0
    adapt(source, target, <uint32_t>got, room)
    if source.tls != NULL:
        return decrypt(conn, worker, source, target, <size_t>got)
    conn.active_ns = worker.now_ns
    source.bytes += <uint64_t>got
    source.lease -= got
    return leg_put_payload(worker, target, worker.scratch_in, <size_t>got)


cdef int broken(leg_t *leg) noexcept nogil:
    """A socket that fails a read takes no write either."""
    leg.flags = (leg.flags | LEG_ENDED | LEG_BROKEN) & ~<uint32_t>LEG_CLEAN
    return errno


cdef void adapt(leg_t *source, leg_t *target, uint32_t got, uint32_t room) noexcept nogil:
    if got == room:
        source.batch = 2 * source.batch if source.batch < BATCH_MAX // 2 else BATCH_MAX
    elif got < source.batch // 4 and source.batch > BATCH_MIN:
        source.batch //= 2
    if got >= BULK_MIN and not source.flags & LEG_BULK:
        source.flags |= LEG_BULK
        # Not at every batch: what a socket paces with hardly ever changes. Splice needs no pieces.
        if socket_is_paced(target.fd):
            target.flags |= LEG_PIECEMEAL


cdef int decrypt(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target,
                 size_t length) noexcept nogil:
    """Every record of the batch; what came before a bad one is delivered all the same."""
    cdef size_t used
    cdef int problem
    leg_io(worker, worker.scratch_in, length)
    problem = leg_decrypt(worker, source, &used, &conn.tls_error)
    if problem != 0:
        return problem
    source.bytes += used
    source.lease -= <int64_t>used
    if used == 0:
        return 0                         # TLS talks to itself: not a sign of life
    conn.active_ns = worker.now_ns
    return leg_put_payload(worker, target, worker.scratch_plain, used)


# ---- splice --------------------------------------------------------------------------------------

cdef int splice_through(conn_t *conn, worker_t *worker, leg_t *source, leg_t *target) noexcept nogil:
    cdef pipe_t *pipe = source.pipe
    cdef uint32_t room = move_room(source, target)
    cdef uint32_t moved = 0
    cdef bint source_dry = False
    cdef int problem = 0
    source.flags &= ~<uint32_t>LEG_READABLE
    while moved < SPLICE_BUDGET:
        source_dry = splice_in(source, pipe, splice_room(conn, worker, source, room))
        if pipe.length == 0:
            break
        problem = splice_out(target, pipe, &moved)
        if problem != 0 or pipe.length > 0:
            break
        if source_dry:
            break
    source.bytes += moved
    if moved > 0:
        conn.active_ns = worker.now_ns
    if moved < CHAT_MAX and pipe.length == 0:
        source.flags &= ~<uint32_t>LEG_BULK
    if problem == EAGAIN:
        return 0                         # the pipe keeps its bytes and stays with the connection
    if pipe.length == 0 or problem != 0:
        pipe_give(worker, pipe)
        source.pipe = NULL
    return problem


cdef uint32_t splice_room(conn_t *conn, worker_t *worker, leg_t *source, uint32_t room) noexcept nogil:
    """How much the pipe may hold: what fits, within the leg's lease. A leg that is paused only empties it."""
    cdef uint64_t most
    if source.pipe.room < room:
        room = source.pipe.room
    if not conn.paced:
        return room
    most = source.pipe.length
    if source.lease > 0 and source.ready_ns <= worker.now_ns:
        most += <uint64_t>source.lease
    return <uint32_t>most if most < room else room


cdef bint splice_in(leg_t *source, pipe_t *pipe, uint32_t room) noexcept nogil:
    """Socket to pipe, until it holds `room` bytes. True: nothing more can be had now."""
    cdef ssize_t got
    if source.flags & LEG_ENDED or pipe.length >= room:
        return True
    got = splice(source.fd, NULL, pipe.write_fd, NULL, room - pipe.length,
                 SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
    if got > 0:
        pipe.length += <uint32_t>got
        source.lease -= got
        return False
    if got == 0:
        source.flags |= LEG_ENDED | LEG_CLEAN
    elif errno != EAGAIN and errno != EINTR:
        broken(source)
    return True


cdef int splice_out(leg_t *target, pipe_t *pipe, uint32_t *moved) noexcept nogil:
    """Pipe to socket. 0, EAGAIN when the socket is full, or what broke it."""
    cdef ssize_t sent
    while pipe.length > 0:
        sent = splice(pipe.read_fd, NULL, target.fd, NULL, pipe.length, SPLICE_F_MOVE | SPLICE_F_NONBLOCK)
        if sent > 0:
            pipe.length -= <uint32_t>sent
            moved[0] += <uint32_t>sent
        elif sent < 0 and errno == EINTR:
            continue
        elif sent < 0 and errno == EAGAIN:
            return EAGAIN
        else:
            target.flags |= LEG_BROKEN
            return errno if sent < 0 else EAGAIN
    return 0


cdef int move_out_of_pipe(worker_t *worker, leg_t *source, leg_t *target) noexcept nogil:
    """From the pipe to a chunk, so that somebody else can have the pipe. 0 or an errno: a byte is lost.
    Without memory for the chunk everything stays where it is."""
    cdef pipe_t *pipe = source.pipe
    cdef chunk_t *chunk
    cdef ssize_t got
    if pipe == NULL or pipe.length == 0 or target.out != NULL:
        return 0
    chunk = chunk_take(&worker.chunks, pipe.length)
    if chunk == NULL:
        return 0
    target.out = chunk
    while pipe.length > 0:
        got = read(pipe.read_fd, chunk.data + chunk.length, pipe.length)
        if got <= 0:
            return errno if got < 0 else EIO
        chunk.length += <uint32_t>got
        pipe.length -= <uint32_t>got
    source.bytes += chunk.length
    source.pipe = NULL
    pipe_give(worker, pipe)
    return 0
