"""One connection of the load on the wire: a socket, with TLS over it when its client has a certificate."""

from libc.stdint cimport uint16_t, uint32_t, uint8_t

from lbcore.tls.engine cimport tls_io_t, tls_pool_t

# An orderly end is, with TLS, a close_notify and then FIN. After ours FIN will do, since nginx sends no
# close_notify to whoever has sent one.
cdef enum:
    WIRE_WAIT = -1               # nothing now
    WIRE_ENDED = -2              # an orderly end
    WIRE_FAILED = -3             # wire.failure says why

cdef enum:
    PIECE = 1 << 16              # plaintext that one call sends at most
    ROOM = 1 << 18               # bytes that one call takes at most
    SEALED = PIECE + 16384       # room for what a piece becomes, and for alerts


cdef struct failure_t:
    const char *doing            # static text
    const char *name             # the TLS engine's, or NULL
    int error                    # errno, or 0


# What all wires of one thread share.
cdef struct scratch_t:
    uint8_t *taken               # ROOM bytes, from the kernel
    uint8_t *plain               # `taken`, decrypted
    uint8_t *sealed              # SEALED bytes, for the kernel
    tls_pool_t *pool


# As whom to connect, and where to.
cdef struct client_t:
    uint32_t source              # IPv4 address, network byte order
    uint16_t port                # of 127.0.0.1, host byte order
    void *config                 # NULL: plain TCP


cdef struct wire_t:
    int fd                       # -1: closed
    void *tls                    # NULL: plain TCP
    tls_io_t io
    bint established             # bytes may be sent
    bint noticed                 # close_notify came
    bint finished                # our end is sent
    uint8_t *owed                # what the kernel has not taken yet; NULL: nothing
    size_t owed_length
    size_t owed_at
    failure_t failure


cdef bint scratch_init(scratch_t *scratch) noexcept nogil
cdef void scratch_fini(scratch_t *scratch) noexcept nogil

# NULL: `problem` says why. PEM texts.
cdef void *client_config(const char *certificate, const char *key, const char *ca,
                         char *problem, size_t room) noexcept nogil
cdef void client_config_free(void *config) noexcept nogil

# Begins to connect, and to shake hands. 0 or WIRE_FAILED; wire_close in any case.
cdef int wire_open(wire_t *wire, scratch_t *scratch, const client_t *client) noexcept nogil
# How many bytes were taken, PIECE at most; what TLS has sealed is taken. 0: wait until it can be written to.
cdef ssize_t wire_send(wire_t *wire, scratch_t *scratch, const uint8_t *data, size_t length) noexcept nogil
# Sends what is owed. 0 or WIRE_FAILED.
cdef int wire_flush(wire_t *wire) noexcept nogil
# How many bytes came, which are at `out_data` (plain ones that are only counted are nowhere), or WIRE_*.
cdef ssize_t wire_receive(wire_t *wire, scratch_t *scratch, bint counted,
                          const uint8_t **out_data) noexcept nogil
# Our end: close_notify, then FIN. 0 or WIRE_FAILED.
cdef int wire_finish(wire_t *wire, scratch_t *scratch) noexcept nogil
cdef void wire_close(wire_t *wire, scratch_t *scratch) noexcept nogil
