"""Cached verdicts, so that a client that comes back costs no Python.

Private to the worker: each answer is broadcast to all of them, and none shares a table that would need
eviction under concurrency. The key is the whole leaf certificate, compared byte by byte after a 64-bit
hash, with the listener, the policy epoch and the TLS generation: nothing to collide, and a certificate
that verified under another CA is not found.

Two-way set-associative: an entry has two places and the older answer is replaced, so the table stays
within its bound whatever is put in. Losing an entry costs one question.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from lbcore.parts.cells cimport verdict_unref
from lbcore.sys.linux cimport memcmp, memcpy

cdef enum:
    PLACES = 8192                # per worker


cdef uint64_t verdict_hash(const uint8_t *key, uint32_t length) noexcept nogil:
    # Eight bytes at a time, multiply and fold. A collision costs a comparison, never a wrong answer.
    cdef uint64_t hash = <uint64_t>0x9e3779b97f4a7c15 ^ length
    cdef uint64_t word
    cdef uint32_t at = 0
    while at + 8 <= length:
        memcpy(&word, key + at, 8)
        hash = (hash ^ word) * <uint64_t>0xff51afd7ed558ccd
        hash ^= hash >> 32
        at += 8
    while at < length:
        hash = (hash ^ key[at]) * <uint64_t>0xff51afd7ed558ccd
        hash ^= hash >> 32
        at += 1
    return hash


cdef bint is_valid(worker_t *worker, verdict_t *verdict) noexcept nogil:
    return verdict.epoch == worker.snapshot.epoch and (
        verdict.expires_ns == 0 or verdict.expires_ns > worker.now_ns
    )


cdef verdict_t *verdicts_find(worker_t *worker, uint64_t listener_id, uint64_t tls_id,
                              const uint8_t *key, uint32_t length) noexcept nogil:
    cdef uint64_t hash
    cdef uint32_t first
    cdef int way
    cdef verdict_t *verdict
    if worker.verdicts == NULL:
        return NULL
    hash = verdict_hash(key, length)
    first = <uint32_t>((hash ^ listener_id) & worker.verdict_mask) & ~<uint32_t>1
    for way in range(2):
        verdict = worker.verdicts[first + way]
        if (
            verdict != NULL
            and verdict.hash == hash
            and verdict.listener_id == listener_id
            and verdict.tls_id == tls_id
            and verdict.key_length == length
            and memcmp(verdict.key, key, length) == 0
        ):
            return verdict if is_valid(worker, verdict) else NULL
    return NULL


cdef void verdicts_insert(worker_t *worker, verdict_t *verdict) noexcept nogil:
    cdef uint32_t first
    cdef uint32_t place
    cdef verdict_t *old
    if worker.verdicts == NULL:
        worker.verdicts = <verdict_t **>calloc(PLACES, sizeof(verdict_t *))
        worker.verdict_mask = PLACES - 1
    if worker.verdicts == NULL:
        verdict_unref(verdict)
        return
    first = <uint32_t>((verdict.hash ^ verdict.listener_id) & worker.verdict_mask) & ~<uint32_t>1
    place = first
    if not replaces(verdict, worker.verdicts[first]):
        # The newer of the two stays: it moves to the second place.
        verdict_unref(worker.verdicts[first + 1])
        worker.verdicts[first + 1] = worker.verdicts[first]
        worker.verdicts[first] = NULL
    old = worker.verdicts[place]
    worker.verdicts[place] = verdict
    verdict_unref(old)


cdef bint replaces(verdict_t *verdict, verdict_t *old) noexcept nogil:
    return old == NULL or (
        old.hash == verdict.hash
        and old.listener_id == verdict.listener_id
        and old.key_length == verdict.key_length
        and memcmp(old.key, verdict.key, verdict.key_length) == 0
    )


cdef void verdicts_clear(worker_t *worker) noexcept nogil:
    cdef uint32_t i
    if worker.verdicts == NULL:
        return
    for i in range(worker.verdict_mask + 1):
        verdict_unref(worker.verdicts[i])
        worker.verdicts[i] = NULL
