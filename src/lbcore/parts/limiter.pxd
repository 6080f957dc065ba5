"""Limits of one scope and the scopes around it: open connections and how fast they are opened."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport limiter_t, scopes_t, taken_t


cdef enum limit_t:
    LIMIT_NONE = 0               # admitted
    LIMIT_OPEN                   # too many open
    LIMIT_RATE                   # opened too fast
    LIMIT_WINDOW                 # too many opened in the window


cdef struct refusal_t:
    limit_t limit
    limiter_t *limiter           # borrowed: the scope that refused
    uint64_t wait_ns             # for LIMIT_RATE and LIMIT_WINDOW: when the next open would be admitted
    limit_t shadow               # what the innermost shadow scope would have refused with
    limiter_t *shadow_limiter    # borrowed


# Takes a slot and a token in every scope, or nothing anywhere, and notes what in `taken`; with a windowed
# scope, `taken.stamps` has room for all of them. `since_ns`: when it asked, for scopes that delay; `now_ns`:
# when it does so now. Any thread.
cdef bint limiter_open(const scopes_t *scopes, uint64_t since_ns, uint64_t now_ns, taken_t *taken,
                       refusal_t *out_refusal) noexcept nogil
# Gives the slots back; exactly once for each limiter_open that was true.
cdef void limiter_close(const scopes_t *scopes) noexcept nogil
# Gives the tokens back as well: a later stage refused, so the open does not count.
cdef void limiter_refund(const scopes_t *scopes, taken_t *taken) noexcept nogil
