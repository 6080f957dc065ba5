"""TLS 1.3 by the system's OpenSSL, 3.0 or newer; compiled only where its headers are.

For whoever wants what s2n does not have: an exact alert for every refusal, Ed25519 client certificates, the
operating system's own (FIPS) provider. Dearer per handshake.

Theory of operation, where OpenSSL is not what one expects:

* Who is refused is decided inside the verify callback, because only there does OpenSSL still send an alert
  that names the cause. The callback may only refuse: at that moment the client has shown a certificate and
  not yet proven that it has the key. What it cannot refuse is decided later, as with any engine.
* A certificate that was let in before is not verified in full again (on_chain).
* OpenSSL has no alert for "this application is not yours": access_denied is nowhere in its table, and
  handshake_failure (40) is the nearest that it maps a verification error to.
* Tickets: SSL_OP_NO_TICKET alone leaves sessions in the server's cache, so the number of tickets is zero and
  the cache is off as well.
* The error queue belongs to the thread and is not emptied by success: it is cleared before each call, or the
  failure of one connection would be told of the next.
* An engine never sees a socket, so a BIO of our own moves bytes between the caller's buffers.

Config functions run on set-up threads; everything else on the worker that owns the connection.
"""

from libc.stdint cimport uint8_t
from libc.stdio cimport snprintf
from libc.stdlib cimport calloc, free, malloc

from lbcore.codes cimport *
from lbcore.parts.der cimport der_fit_for_client
from lbcore.sys.linux cimport memcpy, strlen
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
from lbcore.tls.openssl_api cimport *

cdef enum:
    CHAIN_WANTED = 2             # leaf and CA
    CERTIFICATES_MAX = 20480     # bytes of the client's chain; OpenSSL makes room when they are announced
    ALPN_ROOM = 4096

cdef const char *SUITES = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# No finite-field groups. The hybrid one where this OpenSSL has it (3.5).
cdef const char *GROUPS = b"X25519MLKEM768:X25519:P-256:P-384"
cdef const char *GROUPS_PLAIN = b"X25519:P-256:P-384"

cdef struct box_t:               # what `config` is to the caller
    SSL_CTX *context
    uint8_t alpn[4096]           # names with their lengths, RFC 7301
    unsigned int alpn_length

cdef struct link_t:              # what `connection` is to the caller
    SSL *ssl
    tls_io_t *io
    uint8_t *leaf                # DER, OPENSSL_free
    int leaf_length
    reason_t reason              # why the verify callback refused

cdef BIO_METHOD *bio_method = NULL


# ---- errors --------------------------------------------------------------------------------------

cdef reason_t verify_reason(long error) noexcept nogil:
    if error == X509_V_ERR_CERT_HAS_EXPIRED:
        return REASON_EXPIRED
    if error == X509_V_ERR_CERT_NOT_YET_VALID:
        return REASON_NOT_YET_VALID
    if error == X509_V_ERR_CERT_REVOKED:
        return REASON_REVOKED
    if error == X509_V_ERR_INVALID_PURPOSE:
        return REASON_WRONG_PURPOSE
    if error == X509_V_ERR_CERT_CHAIN_TOO_LONG:
        return REASON_WRONG_ISSUER
    if error in (X509_V_ERR_EE_KEY_TOO_SMALL, X509_V_ERR_CA_KEY_TOO_SMALL, X509_V_ERR_CA_MD_TOO_WEAK):
        return REASON_WEAK_KEY
    if error in (X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
                 X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
                 X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_UNTRUSTED):
        return REASON_UNKNOWN_CA
    return REASON_BAD_CERTIFICATE


cdef int verify_error(reason_t reason) noexcept nogil:
    """The verification error whose alert says it best."""
    if reason == REASON_WRONG_PURPOSE:
        return X509_V_ERR_INVALID_PURPOSE            # unsupported_certificate
    if reason == REASON_WRONG_ISSUER:
        return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT  # unknown_ca
    if reason == REASON_WEAK_KEY:
        return X509_V_ERR_EE_KEY_TOO_SMALL           # bad_certificate
    if reason == REASON_REVOKED:
        return X509_V_ERR_CERT_REVOKED               # certificate_revoked
    if reason == REASON_APP_NOT_ALLOWED:
        return X509_V_ERR_APPLICATION_VERIFICATION   # handshake_failure
    if reason == REASON_ERROR:
        return X509_V_ERR_OUT_OF_MEM                 # internal_error
    return X509_V_ERR_CERT_REJECTED                  # bad_certificate


cdef void openssl_failure(void *connection, tls_failure_t *out_failure) noexcept nogil:
    cdef link_t *link = <link_t *>connection
    cdef unsigned long error = ERR_peek_last_error()
    cdef int reason = ERR_GET_REASON(error)
    cdef long verified = SSL_get_verify_result(link.ssl)
    out_failure.name = ERR_reason_error_string(error)
    if out_failure.name == NULL:         # it has no words for alerts that nobody has defined
        out_failure.name = b"an error without a name"
    if link.reason != REASON_NONE:
        out_failure.reason = link.reason
    elif verified != X509_V_OK:
        out_failure.reason = verify_reason(verified)
    elif ERR_GET_REASON(ERR_peek_error()) == ERR_R_MALLOC_FAILURE:
        out_failure.reason = REASON_ERROR
    elif ERR_GET_LIB(error) != ERR_LIB_SSL:
        out_failure.reason = REASON_HANDSHAKE_FAILED
    elif reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        out_failure.reason = REASON_NO_CERTIFICATE
    elif reason in (SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_WRONG_VERSION_NUMBER, SSL_R_NO_PROTOCOLS_AVAILABLE):
        out_failure.reason = REASON_TLS_VERSION
    elif reason == SSL_R_EXCESSIVE_MESSAGE_SIZE:
        out_failure.reason = REASON_HANDSHAKE_TOO_BIG
    elif reason == SSL_R_BAD_SIGNATURE:  # of its CertificateVerify: it has not the certificate's key
        out_failure.reason = REASON_BAD_CERTIFICATE
    else:
        out_failure.reason = REASON_HANDSHAKE_FAILED


# ---- bytes in and out ----------------------------------------------------------------------------

cdef int on_read(BIO *bio, char *buffer, int room) noexcept nogil:
    cdef size_t taken = io_take(<tls_io_t *>BIO_get_data(bio), buffer, <size_t>room)
    BIO_clear_retry_flags(bio)
    if taken == 0:
        BIO_set_retry_read(bio)
        return -1
    return <int>taken


cdef int on_write(BIO *bio, const char *data, int length) noexcept nogil:
    cdef tls_io_t *io = <tls_io_t *>BIO_get_data(bio)
    BIO_clear_retry_flags(bio)
    if io.output_room - io.output_at < <size_t>length:
        BIO_set_retry_write(bio)
        return -1
    memcpy(io.output + io.output_at, data, <size_t>length)
    io.output_at += <size_t>length
    return length


cdef long on_control(BIO *bio, int command, long argument, void *pointer) noexcept nogil:
    return 1 if command == BIO_CTRL_FLUSH else 0


# ---- configs -------------------------------------------------------------------------------------

cdef void *openssl_config_new(const tls_material_t *material, char *problem, size_t room) noexcept nogil:
    return box_new(material, config_fill, problem, room)


cdef void *openssl_client_config_new(const tls_material_t *material, char *problem,
                                     size_t room) noexcept nogil:
    return box_new(material, client_config_fill, problem, room)


ctypedef const char *(*fill_t)(box_t *box, const tls_material_t *material) noexcept nogil


cdef void *box_new(const tls_material_t *material, fill_t fill, char *problem, size_t room) noexcept nogil:
    cdef box_t *box = <box_t *>calloc(1, sizeof(box_t))
    cdef const char *step
    cdef const char *why
    if box == NULL:
        snprintf(problem, room, b"out of memory")
        return NULL
    ERR_clear_error()
    step = fill(box, material)
    if step != NULL:
        why = ERR_reason_error_string(ERR_peek_error())
        if why == NULL:
            why = b"refused by OpenSSL"
        snprintf(problem, room, b"%s: %s", step, why)
        ERR_clear_error()
        openssl_config_free(box)
        return NULL
    return box


cdef const char *config_fill(box_t *box, const tls_material_t *material) noexcept nogil:
    """NULL, or what could not be done."""
    cdef const char *step = config_begin(box, TLS_server_method())
    if step != NULL:
        return step
    SSL_CTX_set_options(box.context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION
                        | SSL_OP_CIPHER_SERVER_PREFERENCE)
    if SSL_CTX_set_num_tickets(box.context, 0) != 1:
        return b"tickets"
    SSL_CTX_set_max_early_data(box.context, 0)
    SSL_CTX_set_recv_max_early_data(box.context, 0)
    SSL_CTX_set_max_cert_list(box.context, CERTIFICATES_MAX)
    step = load_certificate(box.context, material)
    if step == NULL:
        step = load_client_ca(box.context, material.ca)
    if step == NULL:
        step = load_alpn(box, material)
    return step


cdef const char *client_config_fill(box_t *box, const tls_material_t *material) noexcept nogil:
    cdef const char *step = config_begin(box, TLS_client_method())
    if step == NULL and material.certificate != NULL:
        step = load_certificate(box.context, material)
    if step == NULL:
        step = load_trusted(box.context, material.ca)
    return step


cdef const char *config_begin(box_t *box, const SSL_METHOD *method) noexcept nogil:
    """What both sides have: the version, the suites, no sessions, buffers that go back."""
    box.context = SSL_CTX_new(method)
    if box.context == NULL:
        return b"context"
    if SSL_CTX_set_min_proto_version(box.context, TLS1_3_VERSION) != 1:
        return b"TLS 1.3"
    # The chain we show is the one in the file: left to itself, OpenSSL puts one together from the CAs of the
    # other side, for every handshake, which costs as much as to verify one.
    SSL_CTX_set_mode(box.context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE
                     | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN)
    SSL_CTX_set_session_cache_mode(box.context, SSL_SESS_CACHE_OFF)
    if SSL_CTX_set_ciphersuites(box.context, SUITES) != 1:
        return b"cipher suites"
    if SSL_CTX_set1_groups_list(box.context, GROUPS) != 1:
        ERR_clear_error()
        if SSL_CTX_set1_groups_list(box.context, GROUPS_PLAIN) != 1:
            return b"groups"
    return NULL


cdef const char *load_certificate(SSL_CTX *context, const tls_material_t *material) noexcept nogil:
    cdef BIO *text = BIO_new_mem_buf(material.certificate, -1)
    cdef X509 *certificate = PEM_read_bio_X509(text, NULL, no_password, NULL)
    cdef EVP_PKEY *key
    cdef const char *problem = NULL
    if certificate == NULL or SSL_CTX_use_certificate(context, certificate) != 1:
        problem = b"certificate"
    X509_free(certificate)
    while problem == NULL:
        certificate = PEM_read_bio_X509(text, NULL, no_password, NULL)
        if certificate == NULL:
            ERR_clear_error()            # the end of the chain
            break
        if SSL_CTX_add0_chain_cert(context, certificate) != 1:
            X509_free(certificate)
            problem = b"certificate chain"
    BIO_free(text)
    if problem != NULL:
        return problem
    text = BIO_new_mem_buf(material.key, -1)
    key = PEM_read_bio_PrivateKey(text, NULL, no_password, NULL)
    BIO_free(text)
    if key == NULL or SSL_CTX_use_PrivateKey(context, key) != 1 or SSL_CTX_check_private_key(context) != 1:
        problem = b"key"
    EVP_PKEY_free(key)
    return problem


cdef int no_password(char *buffer, int size, int writing, void *user) noexcept nogil:
    """An encrypted key is refused; by default OpenSSL would ask at the terminal."""
    return -1


cdef const char *load_client_ca(SSL_CTX *context, const char *pem) noexcept nogil:
    cdef BIO *text = BIO_new_mem_buf(pem, -1)
    cdef X509 *ca = PEM_read_bio_X509(text, NULL, no_password, NULL)
    cdef bint is_added = (
        ca != NULL
        and X509_STORE_add_cert(SSL_CTX_get_cert_store(context), ca) == 1
        and SSL_CTX_add_client_CA(context, ca) == 1
    )
    X509_free(ca)
    BIO_free(text)
    if not is_added:
        return b"client CA"
    # The CA is trusted because it was named, be it a root or not.
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN)
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify)
    SSL_CTX_set_cert_verify_callback(context, on_chain, NULL)
    SSL_CTX_set_verify_depth(context, 1)
    return NULL


cdef const char *load_trusted(SSL_CTX *context, const char *pem) noexcept nogil:
    """Every certificate in it: whatever was named is trusted, be it a root or not."""
    cdef BIO *text = BIO_new_mem_buf(pem, -1)
    cdef X509_STORE *store = SSL_CTX_get_cert_store(context)
    cdef X509 *ca = PEM_read_bio_X509(text, NULL, no_password, NULL)
    cdef const char *problem = NULL
    if ca == NULL:
        problem = b"CA"
    while ca != NULL:
        if X509_STORE_add_cert(store, ca) != 1:
            problem = b"CA"
        X509_free(ca)
        ca = PEM_read_bio_X509(text, NULL, no_password, NULL)
    if problem == NULL:
        ERR_clear_error()                # the end of the file
    BIO_free(text)
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN)
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL)
    return problem


cdef const char *load_alpn(box_t *box, const tls_material_t *material) noexcept nogil:
    cdef int i
    cdef size_t length
    for i in range(material.alpn_count):
        length = strlen(material.alpn[i])
        if box.alpn_length + length + 1 > ALPN_ROOM:
            return b"ALPN"
        box.alpn[box.alpn_length] = <uint8_t>length
        memcpy(box.alpn + box.alpn_length + 1, material.alpn[i], length)
        box.alpn_length += <unsigned int>(length + 1)
    if box.alpn_length > 0:
        SSL_CTX_set_alpn_select_cb(box.context, on_alpn, box)
    return NULL


cdef int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_length, const unsigned char *offered,
                 unsigned int offered_length, void *argument) noexcept nogil:
    cdef box_t *box = <box_t *>argument
    if SSL_select_next_proto(<unsigned char **>out, out_length, box.alpn, box.alpn_length, offered,
                             offered_length) == OPENSSL_NPN_NEGOTIATED:
        return SSL_TLSEXT_ERR_OK
    return SSL_TLSEXT_ERR_NOACK


cdef void openssl_config_free(void *config) noexcept nogil:
    cdef box_t *box = <box_t *>config
    if box != NULL:
        SSL_CTX_free(box.context)
        free(box)


# ---- the client's certificate --------------------------------------------------------------------

cdef link_t *link_of(X509_STORE_CTX *context) noexcept nogil:
    cdef SSL *ssl = <SSL *>X509_STORE_CTX_get_ex_data(context, SSL_get_ex_data_X509_STORE_CTX_idx())
    return <link_t *>SSL_get_app_data(ssl)


cdef int on_chain(X509_STORE_CTX *context, void *argument) noexcept nogil:
    """In place of OpenSSL's verification, which a certificate that passed it before does not need: it is the
    same to the last byte, so the CA's signature on it is as good as it was. Whatever is not beyond doubt is
    verified in full, which also finds the exact error."""
    cdef link_t *link = link_of(context)
    if link.leaf == NULL:
        link.leaf_length = i2d_X509(X509_STORE_CTX_get0_cert(context), &link.leaf)
    if link.leaf_length > 0 and link.io.verified(link.io, link.leaf, <size_t>link.leaf_length):
        return answer(context, link, judge(link))
    return X509_verify_cert(context)


cdef int on_verify(int passed, X509_STORE_CTX *context) noexcept nogil:
    """For each certificate of the chain, the leaf last. What OpenSSL refused stays refused."""
    cdef link_t *link = link_of(context)
    if not passed or X509_STORE_CTX_get_error_depth(context) > 0:
        return passed
    if link.leaf_length <= 0:
        return answer(context, link, REASON_ERROR)
    if sk_X509_num(X509_STORE_CTX_get0_chain(context)) != CHAIN_WANTED:
        return answer(context, link, REASON_WRONG_ISSUER)
    return answer(context, link, judge(link))


cdef reason_t judge(link_t *link) noexcept nogil:
    """What OpenSSL does not look at, of a chain that is as it has to be."""
    cdef reason_t reason = der_fit_for_client(link.leaf, <size_t>link.leaf_length)
    if reason == REASON_NONE and link.io.judge != NULL:
        reason = link.io.judge(link.io, link.leaf, <size_t>link.leaf_length)
    return reason


cdef int answer(X509_STORE_CTX *context, link_t *link, reason_t reason) noexcept nogil:
    link.reason = reason
    if reason == REASON_NONE:
        return 1
    X509_STORE_CTX_set_error(context, verify_error(reason))
    return 0


cdef bint openssl_peer(void *connection, tls_peer_t *out_peer) noexcept nogil:
    cdef link_t *link = <link_t *>connection
    if link.leaf == NULL or link.leaf_length <= 0:
        return False
    out_peer.leaf = link.leaf
    out_peer.leaf_length = <size_t>link.leaf_length
    return True


cdef reason_t openssl_judge_peer(void *connection, void *config) noexcept nogil:
    """The verify callback has judged it, or there would be no connection."""
    cdef link_t *link = <link_t *>connection
    if link.leaf == NULL or SSL_get_verify_result(link.ssl) != X509_V_OK:
        return REASON_NO_CERTIFICATE
    return link.reason


cdef const char *openssl_cipher(void *connection) noexcept nogil:
    cdef const SSL_CIPHER *cipher = SSL_get_current_cipher((<link_t *>connection).ssl)
    return SSL_CIPHER_standard_name(cipher) if cipher != NULL else NULL


# ---- connections ---------------------------------------------------------------------------------

cdef tls_pool_t *openssl_pool_new() noexcept nogil:
    """Nothing is kept between connections; the caller wants something that is not NULL."""
    return <tls_pool_t *>malloc(1)


cdef void openssl_pool_free(tls_pool_t *pool) noexcept nogil:
    free(pool)


cdef void *openssl_connection_new(tls_pool_t *pool, void *config, tls_io_t *io) noexcept nogil:
    cdef link_t *link = link_new(<box_t *>config, io)
    if link != NULL:
        SSL_set_accept_state(link.ssl)
    return link


cdef void *openssl_client_new(tls_pool_t *pool, void *config, tls_io_t *io, const char *name,
                              bint is_address) noexcept nogil:
    cdef link_t *link = link_new(<box_t *>config, io)
    cdef bint named
    if link == NULL:
        return NULL
    SSL_set_connect_state(link.ssl)
    if is_address:                       # the server is not told an address: RFC 6066, 3
        named = X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(link.ssl), name) == 1
    else:
        named = SSL_set1_host(link.ssl, name) == 1 and SSL_set_tlsext_host_name(link.ssl, name) == 1
    if not named:
        openssl_connection_free(pool, link)
        return NULL
    return link


cdef link_t *link_new(box_t *box, tls_io_t *io) noexcept nogil:
    cdef link_t *link = <link_t *>calloc(1, sizeof(link_t))
    cdef BIO *bio
    if link == NULL:
        return NULL
    link.io = io
    link.ssl = SSL_new(box.context)
    bio = BIO_new(bio_method)
    if link.ssl == NULL or bio == NULL:
        SSL_free(link.ssl)
        BIO_free(bio)
        free(link)
        return NULL
    BIO_set_data(bio, io)
    BIO_set_init(bio, 1)
    SSL_set_bio(link.ssl, bio, bio)
    SSL_set_app_data(link.ssl, link)
    return link


cdef void openssl_connection_free(tls_pool_t *pool, void *connection) noexcept nogil:
    cdef link_t *link = <link_t *>connection
    SSL_free(link.ssl)
    OPENSSL_free(link.leaf)
    free(link)


cdef tls_result_t openssl_handshake(void *connection, tls_io_t *io,
                                    tls_failure_t *out_failure) noexcept nogil:
    cdef link_t *link = <link_t *>connection
    cdef int result
    ERR_clear_error()
    result = SSL_do_handshake(link.ssl)
    if result == 1:
        return TLS_DONE
    if SSL_get_error(link.ssl, result) == SSL_ERROR_WANT_READ:
        return TLS_WANT_READ
    openssl_failure(connection, out_failure)
    return TLS_FAILED


cdef ssize_t openssl_recv(void *connection, uint8_t *plain, size_t room) noexcept nogil:
    cdef link_t *link = <link_t *>connection
    cdef size_t got = 0
    cdef int error
    ERR_clear_error()
    if SSL_read_ex(link.ssl, plain, room, &got) == 1:
        return <ssize_t>got
    error = SSL_get_error(link.ssl, 0)
    if error == SSL_ERROR_ZERO_RETURN:
        return TLS_CLOSED
    return TLS_WANT_READ if error == SSL_ERROR_WANT_READ else TLS_FAILED


cdef tls_result_t openssl_send(void *connection, const uint8_t *plain, size_t length) noexcept nogil:
    cdef link_t *link = <link_t *>connection
    cdef size_t sent = 0
    cdef size_t taken = 0
    while sent < length:
        ERR_clear_error()
        if SSL_write_ex(link.ssl, plain + sent, length - sent, &taken) != 1:
            return TLS_FAILED            # WANT_WRITE too: the caller left room, so it cannot happen
        sent += taken
    return TLS_DONE


cdef tls_result_t openssl_shutdown_send(void *connection) noexcept nogil:
    ERR_clear_error()
    return TLS_DONE if SSL_shutdown((<link_t *>connection).ssl) >= 0 else TLS_FAILED


cdef bint openssl_go_idle(void *connection) noexcept nogil:
    """It gives its buffers back by itself when they are empty, and holds on to its config."""
    return False


cdef void openssl_release_buffers(void *connection) noexcept nogil:
    pass


# ---- set-up --------------------------------------------------------------------------------------

def version() -> str:
    """Name and version, for people."""
    return OpenSSL_version(OPENSSL_VERSION).decode()


cdef set_up():
    global bio_method
    bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"lbcore")
    if bio_method == NULL:
        raise ImportError("lbcore: OpenSSL: out of memory")
    BIO_meth_set_read(bio_method, on_read)
    BIO_meth_set_write(bio_method, on_write)
    BIO_meth_set_ctrl(bio_method, on_control)


set_up()

openssl_engine.name = b"openssl"
openssl_engine.overhead_record = 22
openssl_engine.overhead_call = 4096
openssl_engine.config_new = openssl_config_new
openssl_engine.client_config_new = openssl_client_config_new
openssl_engine.config_free = openssl_config_free
openssl_engine.pool_new = openssl_pool_new
openssl_engine.pool_free = openssl_pool_free
openssl_engine.connection_new = openssl_connection_new
openssl_engine.client_connection_new = openssl_client_new
openssl_engine.connection_free = openssl_connection_free
openssl_engine.handshake = openssl_handshake
openssl_engine.recv = openssl_recv
openssl_engine.send = openssl_send
openssl_engine.shutdown_send = openssl_shutdown_send
openssl_engine.failure = openssl_failure
openssl_engine.peer = openssl_peer
openssl_engine.judge_peer = openssl_judge_peer
openssl_engine.cipher = openssl_cipher
openssl_engine.go_idle = openssl_go_idle
openssl_engine.release_buffers = openssl_release_buffers
engines_add(&openssl_engine, version())
