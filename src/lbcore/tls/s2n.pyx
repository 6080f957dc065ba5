"""TLS 1.3 by s2n-tls on AWS-LC, taken from the package awscrt.

Theory of operation, where s2n is not what one expects:

* The library sits inside awscrt's extension module and is opened with dlopen; no name of it is linked.
  Another libs2n.so may be named in LBCORE_S2N_LIBRARY. It is initialised once per process and never
  cleaned up: its clean-up would pull the floor from under other users of the same library.
* Memory comes from malloc: by default s2n locks its pages, and an ordinary user runs out of lockable
  memory after fewer than two hundred connections.
* Blinding: after a bad handshake s2n puts the *calling thread* to sleep for up to 30 s. Every config
  sets that to zero and every connection, again after each wipe, blinds itself (that is: not at all; a
  failed handshake is closed at once here, as with any other TLS library).
* s2n_recv gives one record a call and is called until BLOCKED: its mode for several records loses
  plaintext already decrypted when a later record is bad. A positive result says nothing about the end:
  a close_notify shows on the next call only.
* There is no way to send a chosen alert, and s2n_shutdown after a refused certificate writes
  close_notify, which a client takes for a clean end. So a failed handshake sends nothing, but for
  errors in the ClientHello, where s2n_shutdown is asked and its output is kept only if it is a
  plaintext fatal alert.
* Errors are told apart by type and by name: their numbers change between releases.
* Identity is ours to judge, so host name verification is off. Chain: at most three certificates are
  read, and authenticate asks for exactly two (leaf and configured CA) in the *validated* chain. A
  limit of two would let a sub-CA's leaf in when the sub-CA is what the client sends as its chain; one
  would refuse an honest leaf with its CA.
* Whether a certificate is verified in full depends on the certificate (io.verified), but s2n asks nobody
  between reading and verifying it. It does ask for revocation lists at that point, and waits until they
  are there. So a handshake begins with a config whose look-up never answers, and goes on with one of two
  that look nothing up: `full` verifies the chain, `known` does not. With both the client has to prove
  possession of the key. A release that does not wait would refuse everybody, for want of a list.

Config functions run on set-up threads; everything else on the worker that owns the connection.
"""

import importlib.util
import os
from importlib import metadata

from libc.stdint cimport uint8_t, uint32_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc

from lbcore.codes cimport *
from lbcore.parts.der cimport der_fit_for_client
from lbcore.sys.linux cimport EAGAIN, errno, memcmp, memcpy, strlen
from lbcore.tls.engine cimport (
    TLS_CLOSED,
    TLS_DONE,
    TLS_FAILED,
    TLS_WANT_READ,
    io_take,
    tls_failure_t,
    tls_io_t,
    tls_material_t,
    tls_peer_t,
    tls_pool_t,
    tls_result_t,
)
from lbcore.tls_engines cimport engines_add
from lbcore.tls.s2n_api cimport (
    RTLD_LOCAL,
    RTLD_NOW,
    dlerror,
    dlopen,
    s2n_api_resolve,
    s2n_api_t,
    s2n_cert_chain_and_key,
    s2n_config,
    s2n_connection,
)

cdef enum:
    MODE_SERVER = 0
    MODE_CLIENT = 1
    CERT_AUTH_REQUIRED = 1
    CERT_AUTH_OPTIONAL = 2
    SELF_SERVICE_BLINDING = 1
    CHAIN_DEPTH = 3
    CHAIN_WANTED = 2             # leaf and CA
    BLOCKED_ON_APPLICATION = 3   # of s2n_blocked_status
    ERROR_BLOCKED = 3            # of s2n_error_type
    POOL_MAX = 64

# TLS 1.3 only; AES-128-GCM, AES-256-GCM, ChaCha20; X25519MLKEM768, SecP256r1MLKEM768, X25519, P-256, P-384.
cdef const char *SECURITY_POLICY = b"CloudFront-TLS-1-3-2025"

cdef struct box_t:               # what `config` is to the caller
    s2n_config *config           # with which a connection begins
    s2n_config *full             # server side: these two take over when the client's certificate is there
    s2n_config *known
    s2n_cert_chain_and_key *chain

cdef struct wiped_t:             # connections of one mode, ready for the next peer
    s2n_connection *connections[POOL_MAX]
    int count

cdef struct pool_t:
    wiped_t servers
    wiped_t clients

# The context of a client's connection, which tells it from a server's: a wiped one keeps its mode, and nobody
# can ask it for that. The context of a server's is its box.
cdef const char *CLIENT = b"client"

cdef s2n_api_t api
# What an idle connection points at instead of its own config: no certificate, no trust store.
cdef s2n_config *idle_config = NULL


# ---- errors --------------------------------------------------------------------------------------

cdef struct name_reason_t:
    const char *name
    reason_t reason

cdef name_reason_t[20] REASONS_BY_NAME = [
    name_reason_t(b"S2N_ERR_CERT_UNTRUSTED", REASON_UNKNOWN_CA),
    name_reason_t(b"S2N_ERR_CERT_EXPIRED", REASON_EXPIRED),
    name_reason_t(b"S2N_ERR_CERT_NOT_YET_VALID", REASON_NOT_YET_VALID),
    name_reason_t(b"S2N_ERR_CERT_REVOKED", REASON_REVOKED),
    name_reason_t(b"S2N_ERR_CERT_INTENT_INVALID", REASON_WRONG_PURPOSE),
    name_reason_t(b"S2N_ERR_CERT_MAX_CHAIN_DEPTH_EXCEEDED", REASON_WRONG_ISSUER),
    name_reason_t(b"S2N_ERR_CERT_TYPE_UNSUPPORTED", REASON_NO_CERTIFICATE),
    name_reason_t(b"S2N_ERR_NO_CERT_FOUND", REASON_NO_CERTIFICATE),
    name_reason_t(b"S2N_ERR_MISSING_CLIENT_CERT", REASON_NO_CERTIFICATE),
    name_reason_t(b"S2N_ERR_CERT_INVALID", REASON_BAD_CERTIFICATE),
    name_reason_t(b"S2N_ERR_CERT_UNHANDLED_CRITICAL_EXTENSION", REASON_BAD_CERTIFICATE),
    name_reason_t(b"S2N_ERR_CERT_CRL", REASON_BAD_CERTIFICATE),
    name_reason_t(b"S2N_ERR_CERT_UNTRUSTED_SIGNATURE", REASON_BAD_CERTIFICATE),
    name_reason_t(b"S2N_ERR_VERIFY_SIGNATURE", REASON_BAD_CERTIFICATE),
    name_reason_t(b"S2N_ERR_SECURITY_POLICY_INCOMPATIBLE_CERT", REASON_WEAK_KEY),
    name_reason_t(b"S2N_ERR_PROTOCOL_VERSION_UNSUPPORTED", REASON_TLS_VERSION),
    name_reason_t(b"S2N_ERR_UNKNOWN_PROTOCOL_VERSION", REASON_TLS_VERSION),
    name_reason_t(b"S2N_ERR_DEPRECATED_SECURITY_POLICY", REASON_TLS_VERSION),
    name_reason_t(b"S2N_ERR_ALLOC", REASON_ERROR),
    name_reason_t(NULL, REASON_HANDSHAKE_FAILED),        # all others
]


cdef bint same_text(const char *a, const char *b) noexcept nogil:
    cdef size_t length = strlen(a)
    return strlen(b) == length and memcmp(a, b, length) == 0


cdef const char *error_name() noexcept nogil:
    return api.s2n_strerror_name(api.s2n_errno_location()[0])


cdef bint is_blocked() noexcept nogil:
    return api.s2n_error_get_type(api.s2n_errno_location()[0]) == ERROR_BLOCKED


cdef void s2n_failure(void *connection, tls_failure_t *out_failure) noexcept nogil:
    cdef const name_reason_t *row = REASONS_BY_NAME
    out_failure.name = error_name()
    while row.name != NULL and not same_text(out_failure.name, row.name):
        row += 1
    out_failure.reason = row.reason


# ---- bytes in and out ----------------------------------------------------------------------------

cdef int on_recv(void *context, uint8_t *buffer, uint32_t length) noexcept nogil:
    cdef size_t taken = io_take(<tls_io_t *>context, buffer, length)
    global errno
    if taken == 0:
        errno = EAGAIN  # no-cython-lint
        return -1
    return <int>taken


cdef int on_send(void *context, const uint8_t *buffer, uint32_t length) noexcept nogil:
    cdef tls_io_t *io = <tls_io_t *>context
    global errno
    if io.output_room - io.output_at < length:
        errno = EAGAIN  # no-cython-lint
        return -1
    memcpy(io.output + io.output_at, buffer, length)
    io.output_at += length
    return <int>length


# ---- configs -------------------------------------------------------------------------------------

cdef void *s2n_config_box_new(const tls_material_t *material, char *problem, size_t room) noexcept nogil:
    return box_new(material, config_fill, problem, room)


cdef void *s2n_client_box_new(const tls_material_t *material, char *problem, size_t room) noexcept nogil:
    return box_new(material, client_config_fill, problem, room)


ctypedef const char *(*fill_t)(box_t *box, const tls_material_t *material) noexcept nogil


cdef void *box_new(const tls_material_t *material, fill_t fill, char *problem, size_t room) noexcept nogil:
    cdef box_t *box = <box_t *>calloc(1, sizeof(box_t))
    cdef const char *step
    if box == NULL:
        snprintf(problem, room, b"out of memory")
        return NULL
    step = fill(box, material)
    if step != NULL:
        snprintf(problem, room, b"%s: %s (%s)", step,
                 api.s2n_strerror(api.s2n_errno_location()[0], b"EN"), error_name())
        s2n_config_box_free(box)
        return NULL
    return box


cdef const char *config_fill(box_t *box, const tls_material_t *material) noexcept nogil:
    """NULL, or what could not be done."""
    cdef const char *step = server_config(&box.config, box, material)
    if step == NULL and api.s2n_config_set_crl_lookup_cb(box.config, on_certificate, NULL) != 0:
        return b"a pause at the certificate"
    if step == NULL:
        step = server_config(&box.full, box, material)
    if step == NULL:
        step = server_config(&box.known, box, material)
    if step == NULL and api.s2n_config_disable_x509_verification(box.known) != 0:
        return b"a certificate that is known"
    return step


cdef int on_certificate(void *lookup, void *context) noexcept nogil:
    """Asked for revocation lists, between reading the client's chain and verifying it. With no answer the
    handshake pauses there."""
    return 0


cdef const char *server_config(s2n_config **out_config, box_t *box,
                               const tls_material_t *material) noexcept nogil:
    cdef int i
    cdef const char *step = config_begin(out_config, material)
    cdef s2n_config *config = out_config[0]
    if step == NULL:
        step = load_certificate(config, box, material)
    if step != NULL:
        return step
    if api.s2n_config_set_client_auth_type(config, CERT_AUTH_REQUIRED) != 0:
        return b"client authentication"
    if api.s2n_config_set_max_cert_chain_depth(config, CHAIN_DEPTH) != 0:
        return b"chain depth"
    if api.s2n_config_set_cert_authorities_from_trust_store(config) != 0:
        return b"certificate authorities"
    for i in range(material.alpn_count):
        if api.s2n_config_append_protocol_preference(
            config, <const uint8_t *>material.alpn[i], <uint8_t>strlen(material.alpn[i])
        ) != 0:
            return b"ALPN"
    return NULL


cdef const char *client_config_fill(box_t *box, const tls_material_t *material) noexcept nogil:
    cdef const char *step = config_begin(&box.config, material)
    if step == NULL and material.certificate != NULL:
        step = load_certificate(box.config, box, material)
    if step != NULL:
        return step
    # Shown to a server that asks for it; s2n wants one asked for, where it is required here.
    if api.s2n_config_set_client_auth_type(box.config, CERT_AUTH_OPTIONAL) != 0:
        return b"client authentication"
    return NULL


cdef const char *config_begin(s2n_config **out_config, const tls_material_t *material) noexcept nogil:
    """What all have: the policy, no blinding, whom to trust. NULL, or what could not be done."""
    cdef s2n_config *config = api.s2n_config_new_minimal()
    out_config[0] = config
    if config == NULL:
        return b"config"
    if api.s2n_config_set_cipher_preferences(config, SECURITY_POLICY) != 0:
        return b"security policy"
    if api.s2n_config_set_max_blinding_delay(config, 0) != 0:
        return b"blinding"
    if api.s2n_config_wipe_trust_store(config) != 0:
        return b"trust store"
    if api.s2n_config_add_pem_to_trust_store(config, material.ca) != 0:
        return b"CA"
    return NULL


cdef const char *load_certificate(s2n_config *config, box_t *box,
                                  const tls_material_t *material) noexcept nogil:
    if box.chain == NULL:
        box.chain = api.s2n_cert_chain_and_key_new()
        if box.chain == NULL:
            return b"certificate"
        if api.s2n_cert_chain_and_key_load_pem(box.chain, material.certificate, material.key) != 0:
            return b"certificate or key"
    if api.s2n_config_add_cert_chain_and_key_to_store(config, box.chain) != 0:
        return b"certificate"
    return NULL


cdef void s2n_config_box_free(void *config) noexcept nogil:
    cdef box_t *box = <box_t *>config
    if box == NULL:
        return
    if box.config != NULL:
        api.s2n_config_free(box.config)
    if box.full != NULL:
        api.s2n_config_free(box.full)
    if box.known != NULL:
        api.s2n_config_free(box.known)
    if box.chain != NULL:
        api.s2n_cert_chain_and_key_free(box.chain)
    free(box)


# ---- connections ---------------------------------------------------------------------------------

cdef tls_pool_t *s2n_pool_new() noexcept nogil:
    return <tls_pool_t *>calloc(1, sizeof(pool_t))


cdef void s2n_pool_free(tls_pool_t *pool) noexcept nogil:
    if pool != NULL:
        wiped_free(&(<pool_t *>pool).servers)
        wiped_free(&(<pool_t *>pool).clients)
        free(pool)


cdef void wiped_free(wiped_t *wiped) noexcept nogil:
    while wiped.count > 0:
        wiped.count -= 1
        api.s2n_connection_free(wiped.connections[wiped.count])


cdef bint prepare(s2n_connection *connection, box_t *box, tls_io_t *io) noexcept nogil:
    """A new connection and a wiped one need the same: a wipe keeps only the mode."""
    return (
        api.s2n_connection_set_config(connection, box.config) == 0
        and api.s2n_connection_set_blinding(connection, SELF_SERVICE_BLINDING) == 0
        and api.s2n_connection_set_recv_cb(connection, on_recv) == 0
        and api.s2n_connection_set_send_cb(connection, on_send) == 0
        and api.s2n_connection_set_recv_ctx(connection, io) == 0
        and api.s2n_connection_set_send_ctx(connection, io) == 0
        and api.s2n_connection_prefer_throughput(connection) == 0
    )


cdef bint prepare_server(s2n_connection *connection, box_t *box) noexcept nogil:
    return (
        api.s2n_connection_set_verify_host_callback(connection, NULL, NULL) == 0
        and api.s2n_connection_set_ctx(connection, box) == 0
    )


cdef bint prepare_client(s2n_connection *connection, const char *name, bint is_address) noexcept nogil:
    """By default s2n compares the names in the certificate, wildcards too, with the server name, which the
    server is told as well (SNI). An address is not told (RFC 6066, 3): then it is ours to compare."""
    if api.s2n_connection_set_ctx(connection, <void *>CLIENT) != 0:
        return False
    if is_address:
        return api.s2n_connection_set_verify_host_callback(
            connection, <void *>on_address, <void *>name) == 0
    return api.s2n_set_server_name(connection, name) == 0


cdef uint8_t on_address(const char *found, size_t length, void *wanted) noexcept nogil:
    """For each name of the certificate; s2n writes addresses as inet_ntop does, and so do we."""
    return strlen(<const char *>wanted) == length and memcmp(found, wanted, length) == 0


cdef s2n_connection *take(wiped_t *wiped, int mode) noexcept nogil:
    if wiped.count == 0:
        return api.s2n_connection_new(mode)
    wiped.count -= 1
    return wiped.connections[wiped.count]


cdef void *s2n_connection_make(tls_pool_t *pool, void *config, tls_io_t *io) noexcept nogil:
    cdef s2n_connection *connection = take(&(<pool_t *>pool).servers, MODE_SERVER)
    if connection == NULL:
        return NULL
    if not prepare(connection, <box_t *>config, io) or not prepare_server(connection, <box_t *>config):
        api.s2n_connection_free(connection)
        return NULL
    return connection


cdef void *s2n_client_make(tls_pool_t *pool, void *config, tls_io_t *io, const char *name,
                           bint is_address) noexcept nogil:
    cdef s2n_connection *connection = take(&(<pool_t *>pool).clients, MODE_CLIENT)
    if connection == NULL:
        return NULL
    if not prepare(connection, <box_t *>config, io) or not prepare_client(connection, name, is_address):
        api.s2n_connection_free(connection)
        return NULL
    return connection


cdef void s2n_connection_end(tls_pool_t *pool, void *connection) noexcept nogil:
    cdef s2n_connection *self = <s2n_connection *>connection
    cdef pool_t *both = <pool_t *>pool
    cdef bint is_client = api.s2n_connection_get_ctx(self) == <void *>CLIENT
    cdef wiped_t *wiped = &both.clients if is_client else &both.servers
    if wiped.count < POOL_MAX and api.s2n_connection_wipe(self) == 0:
        # Off the config, which may be freed while this one waits in the pool.
        if api.s2n_connection_set_config(self, idle_config) == 0:
            wiped.connections[wiped.count] = self
            wiped.count += 1
            return
    api.s2n_connection_free(self)


cdef tls_result_t s2n_handshake(void *connection, tls_io_t *io, tls_failure_t *out_failure) noexcept nogil:
    cdef int blocked = 0
    cdef int failed = api.s2n_negotiate(<s2n_connection *>connection, &blocked)
    if failed and blocked == BLOCKED_ON_APPLICATION:
        failed = go_on(<s2n_connection *>connection, io)
        if not failed:
            failed = api.s2n_negotiate(<s2n_connection *>connection, &blocked)
    if not failed:
        return TLS_DONE
    if is_blocked():
        return TLS_WANT_READ
    s2n_failure(connection, out_failure)     # before the next call overwrites it
    alert_for(<s2n_connection *>connection, io)
    return TLS_FAILED


cdef int go_on(s2n_connection *connection, tls_io_t *io) noexcept nogil:
    """The handshake pauses, because the client's certificate is there. Not 0: it cannot go on."""
    cdef box_t *box = <box_t *>api.s2n_connection_get_ctx(connection)
    cdef tls_peer_t peer
    if s2n_peer(connection, &peer) and io.verified(io, peer.leaf, peer.leaf_length):
        return api.s2n_connection_set_config(connection, box.known)
    return api.s2n_connection_set_config(connection, box.full)


cdef void alert_for(s2n_connection *connection, tls_io_t *io) noexcept nogil:
    """Leaves in `output` a fatal alert in the clear (RFC 8446, 6.2), as after a bad ClientHello, or
    nothing: whatever s2n writes once keys exist is a close_notify."""
    cdef int blocked = 0
    cdef const uint8_t *record = io.output
    io.output_at = 0
    api.s2n_shutdown(connection, &blocked)
    if io.output_at == 7 and record[0] == 21 and record[5] == 2 and record[6] in (40, 70):
        return
    io.output_at = 0


cdef ssize_t s2n_receive(void *connection, uint8_t *plain, size_t room) noexcept nogil:
    cdef int blocked = 0
    cdef ssize_t got = api.s2n_recv(<s2n_connection *>connection, plain, <ssize_t>room, &blocked)
    if got > 0:
        return got
    if got == 0:
        return TLS_CLOSED
    return TLS_WANT_READ if is_blocked() else TLS_FAILED


cdef tls_result_t s2n_transmit(void *connection, const uint8_t *plain, size_t length) noexcept nogil:
    cdef int blocked = 0
    cdef size_t sent = 0
    cdef ssize_t taken
    while sent < length:
        taken = api.s2n_send(<s2n_connection *>connection, plain + sent, <ssize_t>(length - sent), &blocked)
        if taken < 0:
            return TLS_FAILED            # BLOCKED too: the caller left room, so it cannot happen
        sent += <size_t>taken
    return TLS_DONE


cdef tls_result_t s2n_finish_sending(void *connection) noexcept nogil:
    cdef int blocked = 0
    if api.s2n_shutdown_send(<s2n_connection *>connection, &blocked) == 0:
        return TLS_DONE
    return TLS_FAILED


# ---- the peer ------------------------------------------------------------------------------------

cdef bint s2n_peer(void *connection, tls_peer_t *out_peer) noexcept nogil:
    """s2n keeps the client's chain as (24-bit length, DER) pairs, leaf first."""
    cdef uint8_t *chain = NULL
    cdef uint32_t length = 0
    cdef size_t leaf
    if api.s2n_connection_get_client_cert_chain(<s2n_connection *>connection, &chain, &length) != 0:
        return False
    if chain == NULL or length < 3:
        return False
    leaf = (<size_t>chain[0] << 16) | (<size_t>chain[1] << 8) | chain[2]
    if leaf == 0 or leaf > length - 3:
        return False
    out_peer.leaf = chain + 3
    out_peer.leaf_length = leaf
    return True


cdef reason_t s2n_judge_peer(void *connection, void *config) noexcept nogil:
    cdef s2n_cert_chain_and_key *chain
    cdef s2n_config *used = NULL
    cdef tls_peer_t peer
    cdef uint32_t length = 0
    if api.s2n_connection_client_cert_used(<s2n_connection *>connection) != 1:
        return REASON_NO_CERTIFICATE
    if not s2n_peer(connection, &peer):
        return REASON_NO_CERTIFICATE
    if api.s2n_connection_get_config(<s2n_connection *>connection, &used) != 0:
        return REASON_ERROR
    if used == (<box_t *>config).known:      # judged when it was seen first
        return REASON_NONE
    chain = api.s2n_cert_chain_and_key_new()
    if chain == NULL:
        return REASON_ERROR
    if (
        api.s2n_connection_get_peer_cert_chain(<s2n_connection *>connection, chain) != 0
        or api.s2n_cert_chain_get_length(chain, &length) != 0
    ):
        length = 0
    api.s2n_cert_chain_and_key_free(chain)
    if length == 0:
        return REASON_BAD_CERTIFICATE
    if length != CHAIN_WANTED:
        return REASON_WRONG_ISSUER
    return der_fit_for_client(peer.leaf, peer.leaf_length)


cdef const char *s2n_cipher(void *connection) noexcept nogil:
    return api.s2n_connection_get_cipher(<s2n_connection *>connection)


# ---- memory --------------------------------------------------------------------------------------

cdef bint s2n_go_idle(void *connection) noexcept nogil:
    """28 KB a connection become less than 10: handshake state, the reference to the config, and the
    record buffers go. The order is not documented by s2n and has a test of its own."""
    cdef s2n_connection *self = <s2n_connection *>connection
    cdef bint detached
    api.s2n_connection_free_handshake(self)
    detached = api.s2n_connection_set_config(self, idle_config) == 0
    api.s2n_connection_release_buffers(self)
    return detached


cdef void s2n_release_buffers(void *connection) noexcept nogil:
    # Fails, harmlessly, while a record is half read.
    api.s2n_connection_release_buffers(<s2n_connection *>connection)


cdef int memory_ready() noexcept nogil:
    return 0


cdef int memory_allocate(void **out_memory, uint32_t wanted, uint32_t *out_allocated) noexcept nogil:
    out_memory[0] = malloc(wanted)
    if out_memory[0] == NULL:
        return -1
    out_allocated[0] = wanted
    return 0


cdef int memory_release(void *memory, uint32_t size) noexcept nogil:
    free(memory)
    return 0


# ---- loading -------------------------------------------------------------------------------------

def library_path() -> str:
    """Where the library is: LBCORE_S2N_LIBRARY, or inside the package awscrt."""
    named = os.environ.get("LBCORE_S2N_LIBRARY")
    if named:
        return named
    spec = importlib.util.find_spec("_awscrt")
    if spec is None or not spec.origin:
        raise ImportError("lbcore: the package awscrt is not installed; pip install 'awscrt>=0.32,<0.39'")
    return spec.origin


def version() -> str:
    """Name and version, for people."""
    named = os.environ.get("LBCORE_S2N_LIBRARY")
    if named:
        return f"s2n-tls from {named}"
    return f"s2n-tls on AWS-LC (awscrt {metadata.version('awscrt')})"


cdef load():
    """Opens the library and fills the table. Runs under the import lock, once per process."""
    global idle_config
    cdef const char *missing
    cdef int at = 0
    path = library_path()
    encoded = os.fsencode(path)
    cdef void *library = dlopen(encoded, RTLD_NOW | RTLD_LOCAL)
    if library == NULL:
        raise ImportError(f"lbcore: cannot open {path}: {dlerror().decode(errors='replace')}")
    names = []
    while True:
        missing = s2n_api_resolve(library, &api, &at)
        if missing == NULL:
            break
        names.append(missing.decode())
    if names:
        raise ImportError(f"lbcore: {path} does not export {', '.join(names)}")
    # If this fails, somebody else in the process initialised the library: use it as it is.
    if api.s2n_disable_atexit() == 0:
        api.s2n_mem_set_callbacks(<void *>memory_ready, <void *>memory_ready, <void *>memory_allocate,
                                  <void *>memory_release)
        if api.s2n_init() != 0:
            raise ImportError(f"lbcore: s2n_init: {error_name().decode()}")
    idle_config = api.s2n_config_new_minimal()
    if idle_config == NULL or api.s2n_config_set_max_blinding_delay(idle_config, 0) != 0:
        raise ImportError(f"lbcore: s2n_config_new: {error_name().decode()}")
    if api.s2n_config_set_cipher_preferences(idle_config, SECURITY_POLICY) != 0:
        raise ImportError(f"lbcore: this s2n-tls does not know the policy {SECURITY_POLICY.decode()}")


load()

s2n_engine.name = b"s2n"
s2n_engine.overhead_record = 22
s2n_engine.overhead_call = 4096
s2n_engine.config_new = s2n_config_box_new
s2n_engine.client_config_new = s2n_client_box_new
s2n_engine.config_free = s2n_config_box_free
s2n_engine.pool_new = s2n_pool_new
s2n_engine.pool_free = s2n_pool_free
s2n_engine.connection_new = s2n_connection_make
s2n_engine.client_connection_new = s2n_client_make
s2n_engine.connection_free = s2n_connection_end
s2n_engine.handshake = s2n_handshake
s2n_engine.recv = s2n_receive
s2n_engine.send = s2n_transmit
s2n_engine.shutdown_send = s2n_finish_sending
s2n_engine.failure = s2n_failure
s2n_engine.peer = s2n_peer
s2n_engine.judge_peer = s2n_judge_peer
s2n_engine.cipher = s2n_cipher
s2n_engine.go_idle = s2n_go_idle
s2n_engine.release_buffers = s2n_release_buffers
engines_add(&s2n_engine, version())
