"""How fast connections of one scope may be opened.

The token bucket is GCRA, the leaky bucket as one number (ITU-T I.371, annex A): `next_ns` is the time at
which the bucket would be full again, an open moves it one interval on, and is refused when that would put
it more than `burst` intervals ahead of now. One compare-and-swap, whole nanoseconds on the monotonic clock,
nothing to refill. A connection that was made to wait is judged as if it had been looked at all the time
since it asked: tokens that came in between were there for it, however full the bucket was.

The strict window admits at most `max` opens in any period of that length, not only in those that a bucket
or a fixed grid would look at. It is a ring of `max` places, and an open takes the place at the head when what
was there is a period old: so two opens in the same place are a period apart, and a window shorter than that
holds at most one of each place. The swap is on the place and not on the head, so there is no moment at which
a place is taken and its stamp is not there; whoever finds the place at the head taken already helps the head
along. A stamp carries, beside its time, the parity of the round in which it was written, which tells taken in
this round from left over from the last one, and whether it was struck out.

Any thread, no lock.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lbcore.sys.atomics cimport word_read, word_subtract, word_swap, word_t


# ---- token bucket --------------------------------------------------------------------------------

cdef uint64_t rate_wait(limiter_t *limiter, uint64_t since_ns, uint64_t now_ns) noexcept nogil:
    cdef uint64_t due_ns = word_read(&limiter.next_ns)
    if due_ns < since_ns:
        due_ns = since_ns
    due_ns += limiter.interval_ns
    return 0 if due_ns <= now_ns + limiter.burst_ns else due_ns - now_ns - limiter.burst_ns


cdef bint rate_take(limiter_t *limiter, uint64_t since_ns, uint64_t now_ns) noexcept nogil:
    cdef uint64_t seen_ns
    cdef uint64_t due_ns
    while True:
        seen_ns = word_read(&limiter.next_ns)
        due_ns = (seen_ns if seen_ns > since_ns else since_ns) + limiter.interval_ns
        if due_ns > now_ns + limiter.burst_ns:
            return False
        if word_swap(&limiter.next_ns, seen_ns, due_ns):
            return True


cdef void rate_give(limiter_t *limiter) noexcept nogil:
    word_subtract(&limiter.next_ns, limiter.interval_ns)


# ---- strict window -------------------------------------------------------------------------------

cdef window_t *window_new(uint64_t max, uint64_t period_ns) noexcept nogil:
    cdef window_t *window = <window_t *>calloc(1, sizeof(window_t))
    if window == NULL:
        return NULL
    window.max = max
    window.period_ns = period_ns
    window.stamps = <word_t *>calloc(max, sizeof(word_t))
    if window.stamps == NULL:
        free(window)
        return NULL
    return window


cdef void window_free(window_t *window) noexcept nogil:
    if window != NULL:
        free(window.stamps)
        free(window)


cdef uint64_t parity(const window_t *window, uint64_t head) noexcept nogil:
    """Of stamps written in the head's round. An empty place looks like the round before the first."""
    return 0 if head // window.max & 1 else ODD_ROUND


cdef bint look_at_head(window_t *window, uint64_t *out_head, uint64_t *out_stamp) noexcept nogil:
    """The place at the head and what the last round left in it. False: look again."""
    cdef uint64_t head = word_read(&window.head)
    cdef uint64_t stamp = word_read(&window.stamps[head % window.max])
    if word_read(&window.head) != head:
        return False                     # that stamp may belong to any round
    if stamp & ODD_ROUND == parity(window, head):
        word_swap(&window.head, head, head + 1)
        return False
    out_head[0] = head
    out_stamp[0] = stamp
    return True


cdef uint64_t until_free(window_t *window, uint64_t stamp, uint64_t now_ns) noexcept nogil:
    cdef uint64_t free_ns = (stamp >> STAMP_SHIFT) + window.period_ns
    return 0 if stamp >> STAMP_SHIFT == 0 or stamp & STRUCK_OUT or free_ns <= now_ns else free_ns - now_ns


cdef uint64_t window_wait(window_t *window, uint64_t now_ns) noexcept nogil:
    cdef uint64_t head
    cdef uint64_t seen
    while not look_at_head(window, &head, &seen):
        pass
    return until_free(window, seen, now_ns)


cdef bint window_take(window_t *window, uint64_t now_ns, stamp_t *out_stamp) noexcept nogil:
    cdef uint64_t head
    cdef uint64_t seen
    cdef uint64_t stamp
    while True:
        if not look_at_head(window, &head, &seen):
            continue
        if until_free(window, seen, now_ns) > 0:
            return False
        stamp = window_stamp(window, head, now_ns)
        if word_swap(&window.stamps[head % window.max], seen, stamp):
            word_swap(&window.head, head, head + 1)
            out_stamp.value = stamp
            out_stamp.place = <uint32_t>(head % window.max)
            return True


cdef uint64_t window_stamp(const window_t *window, uint64_t head, uint64_t time_ns) noexcept nogil:
    return time_ns << STAMP_SHIFT | parity(window, head)


cdef void window_give(window_t *window, const stamp_t *stamp) noexcept nogil:
    # Fails when the place was taken since: then the stamp is a period old and counts no more anyway.
    word_swap(&window.stamps[stamp.place], stamp.value, stamp.value | STRUCK_OUT)
