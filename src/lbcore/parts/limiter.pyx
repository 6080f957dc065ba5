"""Connection limits, atomic and nested.

Open connections are a capped counter; how fast they are opened is in opening.pyx. Order in a list of scopes,
from the inside out: all slots, then a look at every rate and window, then the tokens and stamps. Whatever
refuses, what was taken is given back, so a refused attempt consumes nothing anywhere. (A stamp that another
thread's attempt forces out again stays in its window as a struck-out one until it is the oldest: a strict
window errs on the strict side.)

A shadow scope counts and never refuses: it takes the slot above its cap too, and a token only where there
is one.

`admitted` counts what was admitted here, and stays when a later stage refuses and the token comes back.

Any thread, no lock.
"""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from lbcore.parts.opening cimport rate_give, rate_take, rate_wait, window_give, window_take, window_wait
from lbcore.structs cimport MODE_DELAY, MODE_SHADOW
from lbcore.sys.atomics cimport counter_add, gauge_give, gauge_take, gauge_take_below


cdef bint limiter_open(const scopes_t *scopes, uint64_t since_ns, uint64_t now_ns, taken_t *taken,
                       refusal_t *out_refusal) noexcept nogil:
    cdef uint32_t i
    out_refusal.limit = LIMIT_NONE
    out_refusal.limiter = NULL
    out_refusal.wait_ns = 0
    out_refusal.shadow = LIMIT_NONE
    out_refusal.shadow_limiter = NULL
    taken.rated = 0
    taken.windowed = 0
    for i in range(scopes.count):
        if not slot_take(scopes.items[i], out_refusal):
            return refuse(scopes, i, scopes.items[i], out_refusal)
    for i in range(scopes.count):
        if not look(scopes.items[i], since_ns, now_ns, out_refusal):
            return refuse(scopes, scopes.count, scopes.items[i], out_refusal)
    for i in range(scopes.count):
        if not take(scopes.items[i], i, since_ns, now_ns, taken, out_refusal):
            limiter_refund(scopes, taken)
            return refuse(scopes, scopes.count, scopes.items[i], out_refusal)
    for i in range(scopes.count):
        counter_add(&scopes.items[i].admitted, 1)
    if out_refusal.shadow_limiter != NULL:
        counter_add(&out_refusal.shadow_limiter.would_refuse, 1)
    return True


cdef void limiter_close(const scopes_t *scopes) noexcept nogil:
    give_slots(scopes, scopes.count)


cdef void limiter_refund(const scopes_t *scopes, taken_t *taken) noexcept nogil:
    cdef uint32_t i
    for i in range(scopes.count):
        if taken.rated & <uint32_t>1 << i:
            rate_give(scopes.items[i])
        if taken.windowed & <uint32_t>1 << i:
            window_give(scopes.items[i].window, &taken.stamps[i])
    taken.rated = 0
    taken.windowed = 0


cdef bint refuse(const scopes_t *scopes, uint32_t slots, limiter_t *limiter,
                 refusal_t *out_refusal) noexcept nogil:
    give_slots(scopes, slots)
    counter_add(&limiter.refused, 1)
    out_refusal.limiter = limiter
    return False


cdef bint forgiven(limiter_t *limiter, limit_t limit, refusal_t *out_refusal) noexcept nogil:
    """A limit was hit: true in a shadow scope, which only notes it."""
    if limiter.mode != MODE_SHADOW:
        out_refusal.limit = limit
        return False
    if out_refusal.shadow_limiter == NULL:
        out_refusal.shadow = limit
        out_refusal.shadow_limiter = limiter
    return True


cdef bint slot_take(limiter_t *limiter, refusal_t *out_refusal) noexcept nogil:
    cdef int64_t level
    if limiter.open_max > 0 and limiter.mode != MODE_SHADOW:
        if gauge_take_below(&limiter.open, limiter.open_max):
            return True
        return forgiven(limiter, LIMIT_OPEN, out_refusal)
    level = gauge_take(&limiter.open)
    return limiter.open_max == 0 or level <= limiter.open_max or forgiven(limiter, LIMIT_OPEN, out_refusal)


cdef void give_slots(const scopes_t *scopes, uint32_t count) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        gauge_give(&scopes.items[i].open)


cdef uint64_t begun_ns(limiter_t *limiter, uint64_t since_ns, uint64_t now_ns) noexcept nogil:
    """Only scopes that make it wait honour how long it has waited."""
    return since_ns if limiter.mode == MODE_DELAY else now_ns


cdef bint look(limiter_t *limiter, uint64_t since_ns, uint64_t now_ns,
               refusal_t *out_refusal) noexcept nogil:
    if limiter.interval_ns:
        out_refusal.wait_ns = rate_wait(limiter, begun_ns(limiter, since_ns, now_ns), now_ns)
        if out_refusal.wait_ns > 0 and not forgiven(limiter, LIMIT_RATE, out_refusal):
            return False
    if limiter.window != NULL:
        out_refusal.wait_ns = window_wait(limiter.window, now_ns)
        if out_refusal.wait_ns > 0 and not forgiven(limiter, LIMIT_WINDOW, out_refusal):
            return False
    out_refusal.wait_ns = 0
    return True


cdef bint take(limiter_t *limiter, uint32_t i, uint64_t since_ns, uint64_t now_ns, taken_t *taken,
               refusal_t *out_refusal) noexcept nogil:
    """Another thread may have taken the last token since the look."""
    if limiter.interval_ns:
        if rate_take(limiter, begun_ns(limiter, since_ns, now_ns), now_ns):
            taken.rated |= <uint16_t>(1 << i)
        elif not forgiven(limiter, LIMIT_RATE, out_refusal):
            out_refusal.wait_ns = rate_wait(limiter, now_ns, now_ns)
            return False
    if limiter.window != NULL:
        if window_take(limiter.window, now_ns, &taken.stamps[i]):
            taken.windowed |= <uint16_t>(1 << i)
        elif not forgiven(limiter, LIMIT_WINDOW, out_refusal):
            out_refusal.wait_ns = window_wait(limiter.window, now_ns)
            return False
    return True
