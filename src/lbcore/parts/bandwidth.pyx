"""GCRA in bytes: `due` is a place on a clock that runs at `rate` bytes a second.

Whoever wants to move bytes puts them on the account first and gets the time from which it may. So the
order of asking is the order of moving, across all connections, workers and threads of the scope, and with
equal portions everybody who wants bytes gets an equal share: a greedy connection queues behind a modest
one as often as the other way round. `burst` is how far the account may lie behind the clock, that is how
much can be moved at once after silence; an eighth of a second, which also covers that timers fire late.

Any thread, no lock: one compare-and-swap.
"""

from lbcore.sys.atomics cimport word_read, word_subtract, word_swap, word_write

cdef enum:
    SECOND_NS = 1000000000
    TURNS = 32                   # portions a second, where that makes them neither too small nor too big
    QUANTUM_MIN = 1024
    QUANTUM_MAX = 65536


cdef uint64_t clock_bytes(const bandwidth_t *bandwidth, uint64_t now_ns) noexcept nogil:
    return now_ns // SECOND_NS * bandwidth.rate + now_ns % SECOND_NS * bandwidth.rate // SECOND_NS


cdef uint64_t time_of(const bandwidth_t *bandwidth, uint64_t amount) noexcept nogil:
    """Nanoseconds, rounded up."""
    return amount // bandwidth.rate * SECOND_NS + (
        amount % bandwidth.rate * SECOND_NS + bandwidth.rate - 1) // bandwidth.rate


cdef uint64_t bandwidth_reserve(bandwidth_t *bandwidth, uint64_t amount, uint64_t now_ns) noexcept nogil:
    cdef uint64_t here = clock_bytes(bandwidth, now_ns)
    cdef uint64_t floor = here - bandwidth.burst if here > bandwidth.burst else 0
    cdef uint64_t seen
    cdef uint64_t due
    while True:
        seen = word_read(&bandwidth.due)
        due = (seen if seen > floor else floor) + amount
        if word_swap(&bandwidth.due, seen, due):
            return now_ns if due <= here else now_ns + time_of(bandwidth, due - here)


cdef void bandwidth_return(bandwidth_t *bandwidth, uint64_t amount) noexcept nogil:
    word_subtract(&bandwidth.due, amount)


cdef uint64_t bandwidth_quantum(const bandwidth_t *bandwidth) noexcept nogil:
    cdef uint64_t quantum = bandwidth.rate // TURNS
    if quantum < QUANTUM_MIN:
        return QUANTUM_MIN
    return quantum if quantum < <uint64_t>QUANTUM_MAX else <uint64_t>QUANTUM_MAX


cdef uint64_t bandwidth_debt_ns(bandwidth_t *bandwidth, uint64_t now_ns) noexcept nogil:
    cdef uint64_t here = clock_bytes(bandwidth, now_ns)
    cdef uint64_t due = word_read(&bandwidth.due)
    return time_of(bandwidth, due - here) if due > here else 0


cdef void bandwidth_owe(bandwidth_t *bandwidth, uint64_t debt_ns, uint64_t now_ns) noexcept nogil:
    word_write(&bandwidth.due, clock_bytes(bandwidth, now_ns + debt_ns))
