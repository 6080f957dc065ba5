"""The one declaration of s2n-tls; see s2n_api.h. Only tls/s2n.pyx may use it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef extern from "dlfcn.h" nogil:
    void *dlopen(const char *path, int flags)
    const char *dlerror()
    int RTLD_NOW, RTLD_LOCAL


cdef extern from "s2n_api.h" nogil:
    ctypedef struct s2n_config:
        pass
    ctypedef struct s2n_connection:
        pass
    ctypedef struct s2n_cert_chain_and_key:
        pass
    ctypedef int s2n_recv_fn(void *context, uint8_t *buffer, uint32_t length) noexcept nogil
    ctypedef int s2n_send_fn(void *context, const uint8_t *buffer, uint32_t length) noexcept nogil
    ctypedef int s2n_crl_lookup_fn(void *lookup, void *context) noexcept nogil

    ctypedef struct s2n_api_t:
        int (*s2n_disable_atexit)() noexcept nogil
        int (*s2n_mem_set_callbacks)(void *init, void *cleanup, void *allocate, void *release) noexcept nogil
        int (*s2n_init)() noexcept nogil
        int *(*s2n_errno_location)() noexcept nogil
        int (*s2n_error_get_type)(int error) noexcept nogil
        const char *(*s2n_strerror_name)(int error) noexcept nogil
        const char *(*s2n_strerror)(int error, const char *language) noexcept nogil
        s2n_config *(*s2n_config_new_minimal)() noexcept nogil
        int (*s2n_config_free)(s2n_config *config) noexcept nogil
        int (*s2n_config_set_cipher_preferences)(s2n_config *config, const char *policy) noexcept nogil
        int (*s2n_config_add_cert_chain_and_key_to_store)(
            s2n_config *config, s2n_cert_chain_and_key *chain) noexcept nogil
        int (*s2n_config_add_pem_to_trust_store)(s2n_config *config, const char *pem) noexcept nogil
        int (*s2n_config_wipe_trust_store)(s2n_config *config) noexcept nogil
        int (*s2n_config_set_client_auth_type)(s2n_config *config, int type) noexcept nogil
        int (*s2n_config_set_max_blinding_delay)(s2n_config *config, uint32_t seconds) noexcept nogil
        int (*s2n_config_set_max_cert_chain_depth)(s2n_config *config, uint16_t depth) noexcept nogil
        int (*s2n_config_set_cert_authorities_from_trust_store)(s2n_config *config) noexcept nogil
        int (*s2n_config_set_crl_lookup_cb)(
            s2n_config *config, s2n_crl_lookup_fn *callback, void *context) noexcept nogil
        int (*s2n_config_disable_x509_verification)(s2n_config *config) noexcept nogil
        int (*s2n_config_append_protocol_preference)(
            s2n_config *config, const uint8_t *protocol, uint8_t length) noexcept nogil
        s2n_cert_chain_and_key *(*s2n_cert_chain_and_key_new)() noexcept nogil
        int (*s2n_cert_chain_and_key_free)(s2n_cert_chain_and_key *chain) noexcept nogil
        int (*s2n_cert_chain_and_key_load_pem)(
            s2n_cert_chain_and_key *chain, const char *certificate, const char *key) noexcept nogil
        int (*s2n_cert_chain_get_length)(
            const s2n_cert_chain_and_key *chain, uint32_t *length) noexcept nogil
        s2n_connection *(*s2n_connection_new)(int mode) noexcept nogil
        int (*s2n_connection_free)(s2n_connection *connection) noexcept nogil
        int (*s2n_connection_wipe)(s2n_connection *connection) noexcept nogil
        int (*s2n_connection_set_config)(s2n_connection *connection, s2n_config *config) noexcept nogil
        int (*s2n_connection_get_config)(s2n_connection *connection, s2n_config **config) noexcept nogil
        int (*s2n_connection_set_blinding)(s2n_connection *connection, int blinding) noexcept nogil
        int (*s2n_connection_set_verify_host_callback)(
            s2n_connection *connection, void *callback, void *data) noexcept nogil
        int (*s2n_set_server_name)(s2n_connection *connection, const char *name) noexcept nogil
        int (*s2n_connection_set_ctx)(s2n_connection *connection, void *context) noexcept nogil
        void *(*s2n_connection_get_ctx)(s2n_connection *connection) noexcept nogil
        int (*s2n_connection_set_recv_cb)(
            s2n_connection *connection, s2n_recv_fn *callback) noexcept nogil
        int (*s2n_connection_set_send_cb)(
            s2n_connection *connection, s2n_send_fn *callback) noexcept nogil
        int (*s2n_connection_set_recv_ctx)(s2n_connection *connection, void *context) noexcept nogil
        int (*s2n_connection_set_send_ctx)(s2n_connection *connection, void *context) noexcept nogil
        int (*s2n_connection_prefer_throughput)(s2n_connection *connection) noexcept nogil
        int (*s2n_connection_free_handshake)(s2n_connection *connection) noexcept nogil
        int (*s2n_connection_release_buffers)(s2n_connection *connection) noexcept nogil
        int (*s2n_connection_client_cert_used)(s2n_connection *connection) noexcept nogil
        int (*s2n_connection_get_client_cert_chain)(
            s2n_connection *connection, uint8_t **chain, uint32_t *length) noexcept nogil
        int (*s2n_connection_get_peer_cert_chain)(
            const s2n_connection *connection, s2n_cert_chain_and_key *chain) noexcept nogil
        const char *(*s2n_connection_get_cipher)(s2n_connection *connection) noexcept nogil
        int (*s2n_negotiate)(s2n_connection *connection, int *blocked) noexcept nogil
        ssize_t (*s2n_recv)(
            s2n_connection *connection, void *buffer, ssize_t size, int *blocked) noexcept nogil
        ssize_t (*s2n_send)(
            s2n_connection *connection, const void *buffer, ssize_t size, int *blocked) noexcept nogil
        int (*s2n_shutdown)(s2n_connection *connection, int *blocked) noexcept nogil
        int (*s2n_shutdown_send)(s2n_connection *connection, int *blocked) noexcept nogil

    const char *s2n_api_resolve(void *library, s2n_api_t *api, int *from_index)
