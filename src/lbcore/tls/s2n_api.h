/* The part of the s2n-tls C API that we use, resolved at run time.
 *
 * The library comes inside the extension module of the package awscrt, which exports the API but ships
 * no header; the prototypes below are those of s2n-tls' api/s2n.h. They are a C macro because Cython
 * cannot turn one list into both a struct of function pointers and a table of names. */
#ifndef LBCORE_S2N_API_H
#define LBCORE_S2N_API_H

#include <stddef.h>
#include <stdint.h>
#include <dlfcn.h>
#include <sys/types.h>

typedef struct s2n_config s2n_config;
typedef struct s2n_connection s2n_connection;
typedef struct s2n_cert_chain_and_key s2n_cert_chain_and_key;

typedef int s2n_recv_fn(void *io_context, uint8_t *buffer, uint32_t length);
typedef int s2n_send_fn(void *io_context, const uint8_t *buffer, uint32_t length);
typedef int s2n_crl_lookup_fn(void *lookup, void *context);

#define S2N_FUNCTIONS(X)                                                                               \
    X(int, s2n_disable_atexit, (void))                                                                 \
    X(int, s2n_mem_set_callbacks, (void *init, void *cleanup, void *allocate, void *release))          \
    X(int, s2n_init, (void))                                                                           \
    X(int *, s2n_errno_location, (void))                                                               \
    X(int, s2n_error_get_type, (int error))                                                            \
    X(const char *, s2n_strerror_name, (int error))                                                    \
    X(const char *, s2n_strerror, (int error, const char *language))                                   \
    X(struct s2n_config *, s2n_config_new_minimal, (void))                                             \
    X(int, s2n_config_free, (struct s2n_config *config))                                               \
    X(int, s2n_config_set_cipher_preferences, (struct s2n_config *config, const char *policy))         \
    X(int, s2n_config_add_cert_chain_and_key_to_store,                                                 \
      (struct s2n_config *config, struct s2n_cert_chain_and_key *chain))                               \
    X(int, s2n_config_add_pem_to_trust_store, (struct s2n_config *config, const char *pem))            \
    X(int, s2n_config_wipe_trust_store, (struct s2n_config *config))                                   \
    X(int, s2n_config_set_client_auth_type, (struct s2n_config *config, int type))                     \
    X(int, s2n_config_set_max_blinding_delay, (struct s2n_config *config, uint32_t seconds))           \
    X(int, s2n_config_set_max_cert_chain_depth, (struct s2n_config *config, uint16_t depth))           \
    X(int, s2n_config_set_cert_authorities_from_trust_store, (struct s2n_config *config))              \
    X(int, s2n_config_set_crl_lookup_cb,                                                               \
      (struct s2n_config *config, s2n_crl_lookup_fn *callback, void *context))                         \
    X(int, s2n_config_disable_x509_verification, (struct s2n_config *config))                          \
    X(int, s2n_config_append_protocol_preference,                                                      \
      (struct s2n_config *config, const uint8_t *protocol, uint8_t length))                            \
    X(struct s2n_cert_chain_and_key *, s2n_cert_chain_and_key_new, (void))                             \
    X(int, s2n_cert_chain_and_key_free, (struct s2n_cert_chain_and_key *chain))                        \
    X(int, s2n_cert_chain_and_key_load_pem,                                                            \
      (struct s2n_cert_chain_and_key *chain, const char *certificate, const char *key))                \
    X(int, s2n_cert_chain_get_length, (const struct s2n_cert_chain_and_key *chain, uint32_t *length))  \
    X(struct s2n_connection *, s2n_connection_new, (int mode))                                         \
    X(int, s2n_connection_free, (struct s2n_connection *connection))                                   \
    X(int, s2n_connection_wipe, (struct s2n_connection *connection))                                   \
    X(int, s2n_connection_set_config, (struct s2n_connection *connection, struct s2n_config *config))  \
    X(int, s2n_connection_get_config, (struct s2n_connection *connection, struct s2n_config **config)) \
    X(int, s2n_connection_set_blinding, (struct s2n_connection *connection, int blinding))             \
    X(int, s2n_connection_set_verify_host_callback,                                                    \
      (struct s2n_connection *connection, void *callback, void *data))                                 \
    X(int, s2n_set_server_name, (struct s2n_connection *connection, const char *name))                 \
    X(int, s2n_connection_set_ctx, (struct s2n_connection *connection, void *context))                 \
    X(void *, s2n_connection_get_ctx, (struct s2n_connection *connection))                             \
    X(int, s2n_connection_set_recv_cb, (struct s2n_connection *connection, s2n_recv_fn *callback))     \
    X(int, s2n_connection_set_send_cb, (struct s2n_connection *connection, s2n_send_fn *callback))     \
    X(int, s2n_connection_set_recv_ctx, (struct s2n_connection *connection, void *context))            \
    X(int, s2n_connection_set_send_ctx, (struct s2n_connection *connection, void *context))            \
    X(int, s2n_connection_prefer_throughput, (struct s2n_connection *connection))                      \
    X(int, s2n_connection_free_handshake, (struct s2n_connection *connection))                         \
    X(int, s2n_connection_release_buffers, (struct s2n_connection *connection))                        \
    X(int, s2n_connection_client_cert_used, (struct s2n_connection *connection))                       \
    X(int, s2n_connection_get_client_cert_chain,                                                       \
      (struct s2n_connection *connection, uint8_t **chain, uint32_t *length))                          \
    X(int, s2n_connection_get_peer_cert_chain,                                                         \
      (const struct s2n_connection *connection, struct s2n_cert_chain_and_key *chain))                 \
    X(const char *, s2n_connection_get_cipher, (struct s2n_connection *connection))                    \
    X(int, s2n_negotiate, (struct s2n_connection *connection, int *blocked))                           \
    X(ssize_t, s2n_recv, (struct s2n_connection *connection, void *buffer, ssize_t size, int *blocked)) \
    X(ssize_t, s2n_send,                                                                               \
      (struct s2n_connection *connection, const void *buffer, ssize_t size, int *blocked))             \
    X(int, s2n_shutdown, (struct s2n_connection *connection, int *blocked))                            \
    X(int, s2n_shutdown_send, (struct s2n_connection *connection, int *blocked))

typedef struct {
#define S2N_FIELD(result, name, arguments) result(*name) arguments;
    S2N_FUNCTIONS(S2N_FIELD)
#undef S2N_FIELD
} s2n_api_t;

/* Fills `api` from the open library; the first name that is missing, or NULL when all are there.
 * `from`: where to go on, so that a caller can list all missing ones. */
static inline const char *s2n_api_resolve(void *library, s2n_api_t *api, int *from) {
    static const struct {
        const char *name;
        size_t at;
    } functions[] = {
#define S2N_ROW(result, name, arguments) {#name, offsetof(s2n_api_t, name)},
        S2N_FUNCTIONS(S2N_ROW)
#undef S2N_ROW
    };
    for (; *from < (int)(sizeof(functions) / sizeof(functions[0])); ++*from) {
        void *address = dlsym(library, functions[*from].name);
        if (address == NULL) return functions[(*from)++].name;
        *(void **)((char *)api + functions[*from].at) = address;
    }
    return NULL;
}

#endif
