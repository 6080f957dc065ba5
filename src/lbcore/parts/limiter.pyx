"""Connection limits, atomic and nested.

Open connections are a capped counter. The opening rate is GCRA, the leaky bucket as one number (ITU-T
I.371, annex A): `next_ns` is the time at which the bucket would be full again, an open moves it one
interval on, and is refused when that would put it more than `burst` intervals ahead of now. One
compare-and-swap, whole nanoseconds on the monotonic clock, nothing to refill.

Order in a chain of scopes, each the `parent` of the one inside it: the slots from the inside out, then
a look at every rate, then the rates from the inside out. Whatever refuses, what was taken is given back,
so a refused attempt consumes nothing anywhere.

The data path asks the client's scope and then the application's, one after the other (path/limit.pyx),
because a client's limiter may serve several applications; no limiter of the engine has a parent yet.

`admitted` counts what was admitted here, and stays when a later stage refuses and the token comes back.

Any thread, no lock.
"""

from libc.stdint cimport uint64_t

from lbcore.sys.atomics cimport (
    counter_add,
    gauge_give,
    gauge_take,
    gauge_take_below,
    word_read,
    word_subtract,
    word_swap,
)


cdef bint limiter_open(limiter_t *limiter, uint64_t now_ns, refusal_t *out_refusal) noexcept nogil:
    cdef limiter_t *scope
    out_refusal.limit = LIMIT_NONE
    out_refusal.limiter = NULL
    out_refusal.wait_ns = 0
    scope = limiter
    while scope != NULL:
        if not slot_take(scope):
            give_slots(limiter, scope)
            return refuse(scope, LIMIT_OPEN, 0, out_refusal)
        scope = scope.parent
    scope = limiter
    while scope != NULL:
        if scope.interval_ns and rate_wait(scope, now_ns) > 0:
            give_slots(limiter, NULL)
            return refuse(scope, LIMIT_RATE, rate_wait(scope, now_ns), out_refusal)
        scope = scope.parent
    scope = limiter
    while scope != NULL:
        # Another thread may have taken the last token since the look.
        if scope.interval_ns and not rate_take(scope, now_ns):
            give_tokens(limiter, scope)
            give_slots(limiter, NULL)
            return refuse(scope, LIMIT_RATE, rate_wait(scope, now_ns), out_refusal)
        scope = scope.parent
    scope = limiter
    while scope != NULL:
        counter_add(&scope.admitted, 1)
        scope = scope.parent
    return True


cdef void limiter_close(limiter_t *limiter) noexcept nogil:
    give_slots(limiter, NULL)


cdef void limiter_refund(limiter_t *limiter) noexcept nogil:
    give_tokens(limiter, NULL)


cdef bint refuse(limiter_t *scope, limit_t limit, uint64_t wait_ns, refusal_t *out_refusal) noexcept nogil:
    counter_add(&scope.refused, 1)
    out_refusal.limit = limit
    out_refusal.limiter = scope
    out_refusal.wait_ns = wait_ns
    return False


cdef bint slot_take(limiter_t *scope) noexcept nogil:
    if scope.open_max > 0:
        return gauge_take_below(&scope.open, scope.open_max)
    gauge_take(&scope.open)
    return True


cdef void give_slots(limiter_t *first, limiter_t *end) noexcept nogil:
    while first != end:
        gauge_give(&first.open)
        first = first.parent


cdef void give_tokens(limiter_t *first, limiter_t *end) noexcept nogil:
    # A token that comes back late finds the bucket refilled and admits at most one open more.
    while first != end:
        if first.interval_ns:
            word_subtract(&first.next_ns, first.interval_ns)
        first = first.parent


cdef uint64_t rate_wait(limiter_t *scope, uint64_t now_ns) noexcept nogil:
    """Nanoseconds until an open would be admitted; 0: now."""
    cdef uint64_t due_ns = word_read(&scope.next_ns)
    if due_ns < now_ns:
        due_ns = now_ns
    due_ns += scope.interval_ns
    return 0 if due_ns - now_ns <= scope.burst_ns else due_ns - now_ns - scope.burst_ns


cdef bint rate_take(limiter_t *scope, uint64_t now_ns) noexcept nogil:
    cdef uint64_t seen_ns
    cdef uint64_t due_ns
    while True:
        seen_ns = word_read(&scope.next_ns)
        due_ns = (seen_ns if seen_ns > now_ns else now_ns) + scope.interval_ns
        if due_ns - now_ns > scope.burst_ns:
            return False
        if word_swap(&scope.next_ns, seen_ns, due_ns):
            return True
