"""Limits of one scope and the scopes around it: open connections and opening rate."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport limiter_t


cdef enum limit_t:
    LIMIT_NONE = 0               # admitted
    LIMIT_OPEN                   # too many open
    LIMIT_RATE                   # opened too fast


cdef struct refusal_t:
    limit_t limit
    limiter_t *limiter           # borrowed: the scope that refused
    uint64_t wait_ns             # for LIMIT_RATE: when the next open would be admitted


# Takes a slot and a token in every scope, or nothing anywhere. Any thread.
cdef bint limiter_open(limiter_t *limiter, uint64_t now_ns, refusal_t *out_refusal) noexcept nogil
# Gives the slots back; exactly once for each limiter_open that was true.
cdef void limiter_close(limiter_t *limiter) noexcept nogil
# Gives the tokens back as well: a later stage refused, so the open does not count.
cdef void limiter_refund(limiter_t *limiter) noexcept nogil
