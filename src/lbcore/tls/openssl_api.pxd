"""What the openssl engine uses of libssl and libcrypto (3.0 or newer)."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "openssl/ssl.h" nogil:
    ctypedef struct SSL:
        pass
    ctypedef struct SSL_CTX:
        pass
    ctypedef struct SSL_METHOD:
        pass
    ctypedef struct SSL_CIPHER:
        pass
    ctypedef struct BIO:
        pass
    ctypedef struct BIO_METHOD:
        pass
    ctypedef struct X509:
        pass
    ctypedef struct X509_STORE:
        pass
    ctypedef struct X509_STORE_CTX:
        pass
    ctypedef struct X509_VERIFY_PARAM:
        pass
    ctypedef struct EVP_PKEY:
        pass
    ctypedef struct x509_stack_t "STACK_OF(X509)":
        pass
    ctypedef struct OSSL_LIB_CTX:
        pass
    ctypedef int pem_password_cb(char *buffer, int size, int writing, void *user)

    enum:
        TLS1_3_VERSION
        SSL_VERIFY_PEER
        SSL_VERIFY_FAIL_IF_NO_PEER_CERT
        SSL_OP_NO_TICKET
        SSL_OP_NO_RENEGOTIATION
        SSL_OP_CIPHER_SERVER_PREFERENCE
        SSL_SESS_CACHE_OFF
        SSL_MODE_NO_AUTO_CHAIN
        SSL_MODE_RELEASE_BUFFERS
        SSL_MODE_ENABLE_PARTIAL_WRITE
        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
        SSL_ERROR_WANT_READ
        SSL_ERROR_ZERO_RETURN
        SSL_TLSEXT_ERR_OK
        SSL_TLSEXT_ERR_NOACK
        OPENSSL_NPN_NEGOTIATED
        SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE
        SSL_R_UNSUPPORTED_PROTOCOL
        SSL_R_WRONG_VERSION_NUMBER
        SSL_R_NO_PROTOCOLS_AVAILABLE
        SSL_R_EXCESSIVE_MESSAGE_SIZE
        SSL_R_BAD_SIGNATURE
        ERR_R_MALLOC_FAILURE
        X509_V_FLAG_PARTIAL_CHAIN
        X509_V_OK
        X509_V_ERR_CERT_NOT_YET_VALID
        X509_V_ERR_CERT_HAS_EXPIRED
        X509_V_ERR_CERT_REVOKED
        X509_V_ERR_INVALID_PURPOSE
        X509_V_ERR_CERT_REJECTED
        X509_V_ERR_APPLICATION_VERIFICATION
        X509_V_ERR_CERT_CHAIN_TOO_LONG
        X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT
        X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT
        X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
        X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        X509_V_ERR_CERT_UNTRUSTED
        X509_V_ERR_EE_KEY_TOO_SMALL
        X509_V_ERR_CA_KEY_TOO_SMALL
        X509_V_ERR_CA_MD_TOO_WEAK
        X509_V_ERR_OUT_OF_MEM
        BIO_CTRL_FLUSH
        BIO_TYPE_SOURCE_SINK
        ERR_LIB_SSL

    const SSL_METHOD *TLS_server_method()
    const SSL_METHOD *TLS_client_method()
    SSL_CTX *SSL_CTX_new(const SSL_METHOD *method)
    void SSL_CTX_free(SSL_CTX *context)
    int SSL_CTX_set_min_proto_version(SSL_CTX *context, int version)
    uint64_t SSL_CTX_set_options(SSL_CTX *context, uint64_t options)
    long SSL_CTX_set_mode(SSL_CTX *context, long mode)
    long SSL_CTX_set_session_cache_mode(SSL_CTX *context, long mode)
    int SSL_CTX_set_num_tickets(SSL_CTX *context, size_t count)
    int SSL_CTX_set_max_early_data(SSL_CTX *context, uint32_t most)
    int SSL_CTX_set_recv_max_early_data(SSL_CTX *context, uint32_t most)
    int SSL_CTX_set_ciphersuites(SSL_CTX *context, const char *names)
    int SSL_CTX_set1_groups_list(SSL_CTX *context, const char *names)
    long SSL_CTX_set_max_cert_list(SSL_CTX *context, long most)
    void SSL_CTX_set_verify(SSL_CTX *context, int mode, int (*callback)(int, X509_STORE_CTX *) noexcept nogil)
    void SSL_CTX_set_verify_depth(SSL_CTX *context, int depth)
    void SSL_CTX_set_cert_verify_callback(
        SSL_CTX *context, int (*callback)(X509_STORE_CTX *, void *) noexcept nogil, void *argument)
    int X509_verify_cert(X509_STORE_CTX *context)
    X509_VERIFY_PARAM *SSL_CTX_get0_param(SSL_CTX *context)
    int X509_VERIFY_PARAM_set_flags(X509_VERIFY_PARAM *parameters, unsigned long flags)
    int X509_VERIFY_PARAM_set1_ip_asc(X509_VERIFY_PARAM *parameters, const char *address)
    X509_VERIFY_PARAM *SSL_get0_param(SSL *connection)
    int SSL_set1_host(SSL *connection, const char *name)
    long SSL_set_tlsext_host_name(SSL *connection, const char *name)
    void SSL_set_connect_state(SSL *connection)
    X509_STORE *SSL_CTX_get_cert_store(SSL_CTX *context)
    int X509_STORE_add_cert(X509_STORE *store, X509 *certificate)
    int SSL_CTX_add_client_CA(SSL_CTX *context, X509 *certificate)
    int SSL_CTX_use_certificate(SSL_CTX *context, X509 *certificate)
    long SSL_CTX_add0_chain_cert(SSL_CTX *context, X509 *certificate)
    int SSL_CTX_use_PrivateKey(SSL_CTX *context, EVP_PKEY *key)
    int SSL_CTX_check_private_key(const SSL_CTX *context)
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX *context,
        int (*callback)(SSL *, const unsigned char **, unsigned char *, const unsigned char *, unsigned int,
                        void *) noexcept nogil,
        void *argument)
    int SSL_select_next_proto(unsigned char **out, unsigned char *out_length, const unsigned char *server,
                              unsigned int server_length, const unsigned char *client,
                              unsigned int client_length)

    SSL *SSL_new(SSL_CTX *context)
    void SSL_free(SSL *connection)
    void SSL_set_accept_state(SSL *connection)
    void SSL_set_bio(SSL *connection, BIO *reading, BIO *writing)
    int SSL_set_app_data(SSL *connection, void *data)
    void *SSL_get_app_data(const SSL *connection)
    int SSL_do_handshake(SSL *connection)
    int SSL_read_ex(SSL *connection, void *buffer, size_t room, size_t *got)
    int SSL_write_ex(SSL *connection, const void *data, size_t length, size_t *taken)
    int SSL_shutdown(SSL *connection)
    int SSL_get_error(const SSL *connection, int result)
    long SSL_get_verify_result(const SSL *connection)
    const SSL_CIPHER *SSL_get_current_cipher(const SSL *connection)
    const char *SSL_CIPHER_standard_name(const SSL_CIPHER *cipher)
    int SSL_get_ex_data_X509_STORE_CTX_idx()

    BIO_METHOD *BIO_meth_new(int kind, const char *name)
    int BIO_meth_set_write(BIO_METHOD *method, int (*write)(BIO *, const char *, int) noexcept nogil)
    int BIO_meth_set_read(BIO_METHOD *method, int (*read)(BIO *, char *, int) noexcept nogil)
    int BIO_meth_set_ctrl(BIO_METHOD *method, long (*control)(BIO *, int, long, void *) noexcept nogil)
    int BIO_get_new_index()
    BIO *BIO_new(const BIO_METHOD *method)
    BIO *BIO_new_mem_buf(const void *data, int length)
    void BIO_free(BIO *bio)
    void BIO_set_data(BIO *bio, void *data)
    void *BIO_get_data(BIO *bio)
    void BIO_set_init(BIO *bio, int ready)
    void BIO_set_retry_read(BIO *bio)
    void BIO_set_retry_write(BIO *bio)
    void BIO_clear_retry_flags(BIO *bio)

    X509 *PEM_read_bio_X509(BIO *bio, X509 **out, pem_password_cb *callback, void *user)
    EVP_PKEY *PEM_read_bio_PrivateKey(BIO *bio, EVP_PKEY **out, pem_password_cb *callback, void *user)
    void X509_free(X509 *certificate)
    void EVP_PKEY_free(EVP_PKEY *key)
    int i2d_X509(X509 *certificate, unsigned char **out)
    void OPENSSL_free(void *memory)
    X509 *X509_STORE_CTX_get0_cert(const X509_STORE_CTX *context)
    int X509_STORE_CTX_get_error_depth(const X509_STORE_CTX *context)
    void X509_STORE_CTX_set_error(X509_STORE_CTX *context, int error)
    void *X509_STORE_CTX_get_ex_data(const X509_STORE_CTX *context, int index)
    x509_stack_t *X509_STORE_CTX_get0_chain(const X509_STORE_CTX *context)
    int sk_X509_num(const x509_stack_t *chain)


cdef extern from "openssl/err.h" nogil:
    void ERR_clear_error()
    unsigned long ERR_peek_error()
    unsigned long ERR_peek_last_error()
    const char *ERR_reason_error_string(unsigned long error)
    int ERR_GET_REASON(unsigned long error)
    int ERR_GET_LIB(unsigned long error)


cdef extern from "openssl/pem.h" nogil:
    pass


cdef extern from "openssl/crypto.h" nogil:
    const char *OpenSSL_version(int what)
    enum:
        OPENSSL_VERSION
