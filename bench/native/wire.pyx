"""Sockets and TLS for the load.

TLS is lbcore's s2n engine, on its client's side: OpenSSL 3.0's handshake costs the client more CPU than it
costs a proxy, so the load would be what is measured. Two things that the engine's table has no word for are
asked of s2n itself:

* The key exchange is X25519. The engine's own policy prefers ML-KEM, which of all proxies only this project
  would answer: it would do a dearer job than its peers. So each connection gets a policy without it.
* The server's certificate is not verified, which spares the load a tenth of its CPU; that the server has the
  key of it is. Whoever looks at what a proxy presents (`preflight.py`) verifies it.

Each client has an address of its own, 127.0.0.1 and the ones after it: limits of plain TCP are by source,
and each address has 28 000 ports, one of which every connection that was ended from here holds for a
minute (TIME_WAIT; with net.ipv4.tcp_tw_reuse, the default on loopback, a second).
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, malloc

from lbcore.sys.linux cimport (
    AF_INET,
    EAGAIN,
    EINPROGRESS,
    ENOMEM,
    IPPROTO_TCP,
    MSG_NOSIGNAL,
    SHUT_WR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    TCP_NODELAY,
    close,
    connect,
    errno,
    htons,
    memcpy,
    memset,
    recv,
    send,
    setsockopt,
    shutdown,
    sockaddr,
    sockaddr_in,
    socket,
    socklen_t,
)
from lbcore.tls.engine cimport (
    TLS_CLOSED,
    TLS_DONE,
    TLS_FAILED,
    TLS_WANT_READ,
    tls_failure_t,
    tls_material_t,
    tls_result_t,
)
from lbcore.tls.s2n cimport s2n_engine
from lbcore.tls.s2n_api cimport RTLD_LOCAL, RTLD_NOW, dlopen

import os

from lbcore.tls.s2n import library_path

cdef extern from "dlfcn.h" nogil:
    void *dlsym(void *library, const char *name)

cdef extern from "sys/socket.h" nogil:
    int MSG_TRUNC
    int bind(int fd, const sockaddr *address, socklen_t length)

cdef extern from "netinet/in.h" nogil:
    int IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT

cdef enum:
    LOOPBACK = 0x0100007f        # 127.0.0.1, network byte order
    UNBOUNDED = 1 << 30
    PLAIN_ROOM = ROOM + 16384    # a record is longer than what is in it, but may have begun earlier

# TLS 1.3 only; the same ciphers and curves as the engine's policy, in the same order, without ML-KEM.
cdef const char *POLICY = b"AWS-CRT-SDK-TLSv1.3"
# What the server is told that it is called (SNI).
cdef const char *NAME = b"localhost"

ctypedef int (*set_policy_t)(void *connection, const char *policy) noexcept nogil
ctypedef int (*get_config_t)(void *connection, void **config) noexcept nogil
ctypedef int (*trust_all_t)(void *config) noexcept nogil

cdef set_policy_t set_policy
cdef get_config_t get_config
cdef trust_all_t trust_all


cdef void *function(void *library, bytes name) except NULL:
    cdef void *found = dlsym(library, name)
    if found == NULL:
        raise ImportError(f"bench: s2n-tls does not export {name.decode()}")
    return found


cdef load():
    """Finds what the engine's table has not. The library is open already, by the engine."""
    global set_policy, get_config, trust_all
    cdef bytes path = os.fsencode(library_path())
    cdef void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL)
    set_policy = <set_policy_t>function(library, b"s2n_connection_set_cipher_preferences")
    get_config = <get_config_t>function(library, b"s2n_connection_get_config")
    trust_all = <trust_all_t>function(library, b"s2n_config_disable_x509_verification")


load()


# ---- what is shared ------------------------------------------------------------------------------

cdef bint scratch_init(scratch_t *scratch) noexcept nogil:
    scratch.taken = <uint8_t *>malloc(ROOM)
    scratch.plain = <uint8_t *>malloc(PLAIN_ROOM)
    scratch.sealed = <uint8_t *>malloc(SEALED)
    scratch.pool = s2n_engine.pool_new()
    return scratch.taken != NULL and scratch.plain != NULL and scratch.sealed != NULL and scratch.pool != NULL


cdef void scratch_fini(scratch_t *scratch) noexcept nogil:
    free(scratch.taken)
    free(scratch.plain)
    free(scratch.sealed)
    s2n_engine.pool_free(scratch.pool)
    memset(scratch, 0, sizeof(scratch_t))


cdef void *client_config(const char *certificate, const char *key, const char *ca,
                         char *problem, size_t room) noexcept nogil:
    cdef tls_material_t material
    cdef void *config
    memset(&material, 0, sizeof(material))
    material.certificate = certificate
    material.key = key
    material.ca = ca
    config = s2n_engine.client_config_new(&material, problem, room)
    if config != NULL and not trusts_all(config):
        snprintf(problem, room, b"the verification of the server cannot be switched off")
        s2n_engine.config_free(config)
        return NULL
    return config


cdef bint trusts_all(void *config) noexcept nogil:
    """Switches verification off. What s2n calls a config is found by way of a connection."""
    cdef tls_io_t io
    cdef void *inner = NULL
    cdef tls_pool_t *pool = s2n_engine.pool_new()
    cdef void *connection = NULL
    cdef bint done = False
    if pool != NULL:
        connection = s2n_engine.client_connection_new(pool, config, &io, NAME, False)
    if connection != NULL:
        done = get_config(connection, &inner) == 0 and trust_all(inner) == 0
        s2n_engine.connection_free(pool, connection)
    s2n_engine.pool_free(pool)
    return done


cdef void client_config_free(void *config) noexcept nogil:
    s2n_engine.config_free(config)


# ---- failures ------------------------------------------------------------------------------------

cdef int failed(wire_t *wire, const char *doing, int error) noexcept nogil:
    wire.failure.doing = doing
    wire.failure.name = NULL
    wire.failure.error = error
    return WIRE_FAILED


cdef int failed_tls(wire_t *wire, const char *doing) noexcept nogil:
    cdef tls_failure_t failure
    s2n_engine.failure(wire.tls, &failure)
    failed(wire, doing, 0)
    wire.failure.name = failure.name
    return WIRE_FAILED


# ---- opening and closing -------------------------------------------------------------------------

cdef int wire_open(wire_t *wire, scratch_t *scratch, const client_t *client) noexcept nogil:
    memset(wire, 0, sizeof(wire_t))
    wire.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if wire.fd < 0:
        return failed(wire, b"making a socket", errno)
    if not from_source(wire.fd, client.source) or not towards(wire.fd, client.port):
        return failed(wire, b"connecting", errno)
    if client.config == NULL:
        wire.established = True
        return 0
    wire.tls = s2n_engine.client_connection_new(scratch.pool, client.config, &wire.io, NAME, False)
    if wire.tls == NULL:
        return failed(wire, b"preparing TLS", ENOMEM)
    if set_policy(wire.tls, POLICY) != 0:
        return failed_tls(wire, b"preparing TLS")
    return shake_hands(wire, scratch)


cdef bint from_source(int fd, uint32_t source) noexcept nogil:
    """The port is chosen when the target is known, so it only has to be free for that one."""
    cdef int one = 1
    cdef sockaddr_in address
    memset(&address, 0, sizeof(address))
    address.sin_family = AF_INET
    address.sin_addr.s_addr = source
    return (
        setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one)) == 0
        and setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0
        and bind(fd, <sockaddr *>&address, sizeof(address)) == 0
    )


cdef bint towards(int fd, int port) noexcept nogil:
    """On loopback the connection is there when this returns; where it is not, the first bytes are owed."""
    cdef sockaddr_in address
    memset(&address, 0, sizeof(address))
    address.sin_family = AF_INET
    address.sin_addr.s_addr = LOOPBACK
    address.sin_port = htons(port)
    return connect(fd, <sockaddr *>&address, sizeof(address)) == 0 or errno == EINPROGRESS


cdef int wire_finish(wire_t *wire, scratch_t *scratch) noexcept nogil:
    if wire.tls != NULL:
        output_to(wire, scratch)
        if s2n_engine.shutdown_send(wire.tls) != TLS_DONE:
            return failed_tls(wire, b"ending")
        if send_output(wire) != 0:
            return WIRE_FAILED
        if wire.owed != NULL:
            return failed(wire, b"ending: no room for close_notify", 0)
    if shutdown(wire.fd, SHUT_WR) != 0:
        return failed(wire, b"ending", errno)
    wire.finished = True
    return 0


cdef void wire_close(wire_t *wire, scratch_t *scratch) noexcept nogil:
    if wire.tls != NULL:
        s2n_engine.connection_free(scratch.pool, wire.tls)
        wire.tls = NULL
    if wire.fd >= 0:
        close(wire.fd)
        wire.fd = -1
    free(wire.owed)
    wire.owed = NULL


# ---- sending -------------------------------------------------------------------------------------

cdef ssize_t wire_send(wire_t *wire, scratch_t *scratch, const uint8_t *data, size_t length) noexcept nogil:
    cdef ssize_t sent
    if wire_flush(wire) != 0:
        return WIRE_FAILED
    if wire.owed != NULL:
        return 0
    if length > PIECE:
        length = PIECE
    if wire.tls == NULL:
        sent = send(wire.fd, data, length, MSG_NOSIGNAL)
        if sent >= 0:
            return sent
        return 0 if errno == EAGAIN else failed(wire, b"sending", errno)
    output_to(wire, scratch)
    if s2n_engine.send(wire.tls, data, length) != TLS_DONE:
        return failed_tls(wire, b"sending")
    return <ssize_t>length if send_output(wire) == 0 else WIRE_FAILED


cdef int wire_flush(wire_t *wire) noexcept nogil:
    cdef ssize_t sent
    if wire.owed == NULL:
        return 0
    sent = send(wire.fd, wire.owed + wire.owed_at, wire.owed_length - wire.owed_at, MSG_NOSIGNAL)
    if sent < 0:
        return 0 if errno == EAGAIN else failed(wire, b"sending", errno)
    wire.owed_at += <size_t>sent
    if wire.owed_at == wire.owed_length:
        free(wire.owed)
        wire.owed = NULL
    return 0


cdef void output_to(wire_t *wire, scratch_t *scratch) noexcept nogil:
    wire.io.output = scratch.sealed
    wire.io.output_room = SEALED
    wire.io.output_at = 0


cdef int send_output(wire_t *wire) noexcept nogil:
    """Sends what the engine left; what the kernel does not take is owed."""
    cdef size_t length = wire.io.output_at
    cdef ssize_t sent = 0
    wire.io.output_at = 0
    if length == 0:
        return 0
    if wire.owed == NULL:
        sent = send(wire.fd, wire.io.output, length, MSG_NOSIGNAL)
        if sent < 0 and errno != EAGAIN:
            return failed(wire, b"sending", errno)
    if sent < 0:
        sent = 0
    return 0 if <size_t>sent == length else owe(wire, wire.io.output + sent, length - <size_t>sent)


cdef int owe(wire_t *wire, const uint8_t *data, size_t length) noexcept nogil:
    """Behind what is owed already."""
    cdef size_t before = wire.owed_length - wire.owed_at if wire.owed != NULL else 0
    cdef uint8_t *owed = <uint8_t *>malloc(before + length)
    if owed == NULL:
        return failed(wire, b"sending", ENOMEM)
    if before > 0:
        memcpy(owed, wire.owed + wire.owed_at, before)
    memcpy(owed + before, data, length)
    free(wire.owed)
    wire.owed = owed
    wire.owed_length = before + length
    wire.owed_at = 0
    return 0


# ---- receiving -----------------------------------------------------------------------------------

cdef ssize_t wire_receive(wire_t *wire, scratch_t *scratch, bint counted,
                          const uint8_t **out_data) noexcept nogil:
    cdef int flags = MSG_TRUNC if counted and wire.tls == NULL else 0
    cdef ssize_t got = recv(wire.fd, scratch.taken, ROOM, flags)
    if got < 0:
        return WIRE_WAIT if errno == EAGAIN else failed(wire, b"receiving", errno)
    if got == 0 and (wire.tls == NULL or wire.noticed or wire.finished):
        return WIRE_ENDED
    if got == 0:
        return failed(wire, b"cut off without close_notify", 0)
    out_data[0] = scratch.taken
    if wire.tls == NULL:
        return got
    out_data[0] = scratch.plain
    wire.io.input = scratch.taken
    wire.io.input_length = <size_t>got
    wire.io.input_at = 0
    if not wire.established and shake_hands(wire, scratch) != 0:
        return WIRE_FAILED
    return decrypted(wire, scratch) if wire.established else WIRE_WAIT


cdef int shake_hands(wire_t *wire, scratch_t *scratch) noexcept nogil:
    """One step of it, as far as the input goes."""
    cdef tls_failure_t failure
    cdef tls_result_t result
    output_to(wire, scratch)
    wire.io.barren = 0
    wire.io.barren_max = UNBOUNDED
    result = s2n_engine.handshake(wire.tls, &wire.io, &failure)
    if result == TLS_FAILED:
        failed(wire, b"shaking hands", 0)
        wire.failure.name = failure.name
        return WIRE_FAILED
    wire.established = result == TLS_DONE
    return send_output(wire)


cdef ssize_t decrypted(wire_t *wire, scratch_t *scratch) noexcept nogil:
    """All records that are there."""
    cdef size_t at = 0
    cdef ssize_t got
    output_to(wire, scratch)
    wire.io.barren = 0
    while True:
        got = s2n_engine.recv(wire.tls, scratch.plain + at, PLAIN_ROOM - at)
        if got <= 0:
            break
        at += <size_t>got
    if got == TLS_CLOSED:
        wire.noticed = True
    elif got != TLS_WANT_READ:
        return failed_tls(wire, b"receiving")
    if send_output(wire) != 0:
        return WIRE_FAILED
    return <ssize_t>at if at > 0 else WIRE_WAIT
