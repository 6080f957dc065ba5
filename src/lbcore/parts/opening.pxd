"""How fast connections of one scope may be opened: a token bucket, and a strict window."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport limiter_t, stamp_t, window_t


# ---- token bucket

# Nanoseconds until an open would be admitted; 0: now. `since_ns` is when it was asked for, now or before.
cdef uint64_t rate_wait(limiter_t *limiter, uint64_t since_ns, uint64_t now_ns) noexcept nogil
# Takes a token, or does nothing.
cdef bint rate_take(limiter_t *limiter, uint64_t since_ns, uint64_t now_ns) noexcept nogil
# Gives it back. One that comes late finds the bucket refilled and admits at most one open more.
cdef void rate_give(limiter_t *limiter) noexcept nogil

# ---- strict window

cdef enum:                       # of a stamp; its time in nanoseconds is above
    STRUCK_OUT = 1
    ODD_ROUND = 2
    STAMP_SHIFT = 2

# With all its memory, or NULL.
cdef window_t *window_new(uint64_t max, uint64_t period_ns) noexcept nogil
cdef void window_free(window_t *window) noexcept nogil
# Nanoseconds until an open would be admitted; 0: now.
cdef uint64_t window_wait(window_t *window, uint64_t now_ns) noexcept nogil
# Writes a stamp and says which, or does nothing and answers False.
cdef bint window_take(window_t *window, uint64_t now_ns, stamp_t *out_stamp) noexcept nogil
# Strikes the stamp out: it counts no more once it is the oldest one.
cdef void window_give(window_t *window, const stamp_t *stamp) noexcept nogil
# The stamp of an open at that time in that place of the ring, for a snapshot.
cdef uint64_t window_stamp(const window_t *window, uint64_t head, uint64_t time_ns) noexcept nogil
