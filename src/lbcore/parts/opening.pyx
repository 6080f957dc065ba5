"""How fast connections of one scope may be opened.

The token bucket is GCRA, the leaky bucket as one number (ITU-T I.371, annex A): `next_ns` is the time at
which the bucket would be full again, an open moves it one interval on, and is refused when that would put
it more than `burst` intervals ahead of now. One compare-and-swap, whole nanoseconds on the monotonic clock,
nothing to refill. A connection that was made to wait is judged as if it had been looked at all the time
since it asked: tokens that came in between were there for it, however full the bucket was.

The strict window admits at most `max` opens in any period of that length, not only in those that a bucket
or a fixed grid would look at. It is a ring of the last `max` stamps: an open may take the place of the
oldest one when that is a period old. The swap is on the slot and not on the head, so there is no moment
at which a place is taken and its stamp is not there; whoever finds the slot at the head filled already
(its stamp is younger than the one before it) helps the head along. Stamps strictly grow, so a slot never
holds the same value twice. They are even: the lowest bit says that the stamp was struck out.

Any thread, no lock.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from lbcore.sys.atomics cimport word_read, word_subtract, word_swap, word_t

cdef enum:
    STRUCK_OUT = 1


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


cdef bint is_filled(window_t *window, uint64_t head, uint64_t stamp, uint64_t *out_before) noexcept nogil:
    """Whether the slot at the head was taken since the head came there. `out_before`: the youngest stamp
    before it."""
    if window.max == 1:
        out_before[0] = stamp
        return False
    out_before[0] = word_read(&window.stamps[(head + window.max - 1) % window.max])
    return stamp > out_before[0]


cdef uint64_t until_free(window_t *window, uint64_t stamp, uint64_t now_ns) noexcept nogil:
    if stamp == 0 or stamp & STRUCK_OUT or stamp + window.period_ns <= now_ns:
        return 0
    return stamp + window.period_ns - now_ns


cdef uint64_t window_wait(window_t *window, uint64_t now_ns) noexcept nogil:
    cdef uint64_t head
    cdef uint64_t stamp
    cdef uint64_t before
    while True:
        head = word_read(&window.head)
        stamp = word_read(&window.stamps[head % window.max])
        if not is_filled(window, head, stamp, &before):
            return until_free(window, stamp, now_ns)
        word_swap(&window.head, head, head + 1)


cdef bint window_take(window_t *window, uint64_t now_ns, stamp_t *out_stamp) noexcept nogil:
    cdef uint64_t head
    cdef uint64_t seen
    cdef uint64_t before
    cdef uint64_t stamp
    while True:
        head = word_read(&window.head)
        seen = word_read(&window.stamps[head % window.max])
        if is_filled(window, head, seen, &before):
            word_swap(&window.head, head, head + 1)
            continue
        if until_free(window, seen, now_ns) > 0:
            if word_read(&window.head) == head:
                return False
            continue
        stamp = ((now_ns if now_ns > before else before + 1) + 1) & ~<uint64_t>STRUCK_OUT
        if word_swap(&window.stamps[head % window.max], seen, stamp):
            word_swap(&window.head, head, head + 1)
            out_stamp.time_ns = stamp
            out_stamp.slot = <uint32_t>(head % window.max)
            return True


cdef void window_give(window_t *window, const stamp_t *stamp) noexcept nogil:
    # Fails when the place was taken since: then the stamp is a period old and counts no more anyway.
    word_swap(&window.stamps[stamp.slot], stamp.time_ns, stamp.time_ns | STRUCK_OUT)
