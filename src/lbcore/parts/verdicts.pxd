"""A worker's private cache of what the policy answered."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore.structs cimport verdict_t, worker_t


cdef uint64_t verdict_hash(const uint8_t *key, uint32_t length) noexcept nogil
# The cached answer, borrowed until the next insert, or NULL. Of another epoch, TLS generation or past
# its time: not found.
cdef verdict_t *verdicts_find(worker_t *worker, uint64_t listener_id, uint64_t tls_id,
                              const uint8_t *key, uint32_t length) noexcept nogil
# Takes over the caller's reference.
cdef void verdicts_insert(worker_t *worker, verdict_t *verdict) noexcept nogil
cdef void verdicts_clear(worker_t *worker) noexcept nogil
