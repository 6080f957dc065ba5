"""The one interface to a TLS library. Nothing above this table knows which library it is.

Engines never see a socket. The caller sets `input` to what the kernel gave and `output` to an empty
buffer, calls, and afterwards sends what `output` holds. All of it runs on the worker that owns the
connection; `config_*` run on set-up threads.

    input    taken from `input_at` by io_take; a call that answers WANT_READ has consumed everything, or
             more bytes of records without data than `barren_max`
    output   appended at `output_at`; the caller leaves room for the plaintext and the two overheads
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from lbcore.codes cimport reason_t
from lbcore.sys.linux cimport memcpy

cdef enum:
    RECORD_HEADER = 5            # RFC 8446, 5.1


cdef struct tls_io_t:
    const uint8_t *input
    size_t input_length
    size_t input_at
    uint8_t *output
    size_t output_room
    size_t output_at
    uint32_t barren              # bytes of records that carried no data, or none yet
    uint32_t barren_before       # the same when the last record began
    bint cut                     # what was asked for last came in part; its rest is asked for next
    uint32_t barren_max          # with more than these no further record is begun
    # An engine that can still tell the client why asks, before the handshake is over, whether the native
    # policy refuses this leaf. REASON_NONE is no promise: only the stages after the handshake let in.
    reason_t (*judge)(tls_io_t *io, const uint8_t *leaf, size_t length) noexcept nogil
    # Server side. Whether this leaf, to the last byte, has passed the engine's verification under the same
    # config before and is in date, as its CA is: then nothing of the chain is left to look at. The client's
    # key still is. An engine need not ask.
    bint (*verified)(tls_io_t *io, const uint8_t *leaf, size_t length) noexcept nogil
    void *judged                 # for both: the connection
    void *judging                # for both: its worker


cdef inline size_t io_take(tls_io_t *io, void *buffer, size_t wanted) noexcept nogil:
    """What an engine's read callback answers: up to `wanted` bytes, 0 when there are no more. Engines ask
    for the header of a record and then for its body, and again for what is missing of either, so a record is
    seen to begin."""
    cdef size_t left = io.input_length - io.input_at
    if left == 0:
        return 0
    if wanted == RECORD_HEADER and not io.cut:
        if io.barren > io.barren_max:
            return 0
        io.barren_before = io.barren
    if left > wanted:
        left = wanted
    io.cut = left < wanted
    io.barren += <uint32_t>left
    memcpy(buffer, io.input + io.input_at, left)
    io.input_at += left
    return left


cdef enum tls_result_t:
    TLS_DONE = 0         # handshake finished, or everything was sent
    TLS_WANT_READ = -1   # needs bytes that are not here yet
    TLS_CLOSED = -2      # close_notify: a clean end
    TLS_FAILED = -3      # handshake: see out_failure; else: see failure()


cdef struct tls_failure_t:
    reason_t reason      # the reason code this error stands for; REASON_ERROR: memory was out
    const char *name     # the library's own name of it; static text, never NULL


cdef struct tls_material_t:
    # PEM, NUL-terminated, owned by the caller for the length of the call
    const char *certificate      # of ours; for the client side this and the key may be NULL
    const char *key
    const char *ca               # server side: the one CA of clients; client side: those of the upstream
    const char **alpn            # names, NUL-terminated
    int alpn_count


cdef struct tls_peer_t:
    const uint8_t *leaf          # DER, owned by the connection until it is freed or wiped
    size_t leaf_length


# One per worker: what the engine keeps between connections (a pool of wiped ones). Opaque.
ctypedef void tls_pool_t


cdef struct tls_engine_t:
    const char *name
    size_t overhead_record       # bytes a record adds
    size_t overhead_call         # bytes a call may add besides (alerts, key updates)

    # NULL on failure, with one sentence in `problem`. Frees with config_free.
    void *(*config_new)(const tls_material_t *material, char *problem, size_t room) noexcept nogil
    void *(*client_config_new)(const tls_material_t *material, char *problem, size_t room) noexcept nogil
    void (*config_free)(void *config) noexcept nogil

    tls_pool_t *(*pool_new)() noexcept nogil
    void (*pool_free)(tls_pool_t *pool) noexcept nogil

    # A server connection on `config` that moves bytes through `io`. NULL when memory is out.
    void *(*connection_new)(tls_pool_t *pool, void *config, tls_io_t *io) noexcept nogil
    # A client connection on a client config, to a server whose certificate must have this name: a host name,
    # or an IP address (`is_address`); the name has to outlive the handshake. NULL when memory is out.
    void *(*client_connection_new)(tls_pool_t *pool, void *config, tls_io_t *io, const char *name,
                                   bint is_address) noexcept nogil
    # Ends it; the engine may wipe it and keep it for the next one.
    void (*connection_free)(tls_pool_t *pool, void *connection) noexcept nogil

    # After TLS_FAILED, `output` holds what may still be sent (a fatal alert the client can read) or
    # nothing. Never anything that a client could take for a clean end.
    # *out_failure is set with TLS_FAILED only.
    tls_result_t (*handshake)(void *connection, tls_io_t *io, tls_failure_t *out_failure) noexcept nogil
    # > 0 bytes of plaintext, else a tls_result_t. Call again until WANT_READ, CLOSED or FAILED. May leave
    # an answer of TLS itself in `output`, which has to be sent.
    ssize_t (*recv)(void *connection, uint8_t *plain, size_t room) noexcept nogil
    # TLS_DONE: all of `plain` is in `output`.
    tls_result_t (*send)(void *connection, const uint8_t *plain, size_t length) noexcept nogil
    # close_notify into `output`.
    tls_result_t (*shutdown_send)(void *connection) noexcept nogil

    # What the last TLS_FAILED of this thread meant. Read it before the next call.
    void (*failure)(void *connection, tls_failure_t *out_failure) noexcept nogil

    # Server side. The client's leaf after the handshake, or what it sent before it failed. False: none.
    bint (*peer)(void *connection, tls_peer_t *out_peer) noexcept nogil
    # REASON_NONE when the verified chain is leaf + the configured CA and the leaf is fit for a client; or was
    # when it was seen before, and `verified` said so in this handshake.
    reason_t (*judge_peer)(void *connection, void *config) noexcept nogil
    const char *(*cipher)(void *connection) noexcept nogil

    # Gives back what an idle connection does not need; `config` is not used by it afterwards.
    # False: it could not be detached and still needs `config`.
    bint (*go_idle)(void *connection) noexcept nogil
    # Gives back the record buffers only; cheap, after every quiet spell.
    void (*release_buffers)(void *connection) noexcept nogil
