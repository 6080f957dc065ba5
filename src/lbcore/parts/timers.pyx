"""A hashed timer wheel (Varghese & Lauck, 1987): arming and disarming are a list insertion.

4 096 slots of 2^25 ns (33.6 ms) make a turn of 137 s. A deadline further away waits in the last slot
of the turn and is put in again when the wheel gets there, so a connection that is quiet for half an
hour costs thirteen moves. A bit per slot finds the next deadline without walking empty slots, and a
worker without deadlines sleeps for ever.

A deadline fires at most one slot late and never early. One thread: the worker that owns it.
"""

from libc.stdint cimport uint32_t, uint64_t

from lbcore.structs cimport TIMER_NONE, TIMER_SLOTS
from lbcore.sys.linux cimport memset

cdef enum:
    TICK_SHIFT = 25


cdef extern from *:
    """
    static inline int lbcore_lowest_bit(unsigned long long word) { return __builtin_ctzll(word); }
    """
    int lowest_bit "lbcore_lowest_bit"(uint64_t word) noexcept nogil


cdef void wheel_init(wheel_t *wheel, uint64_t now_ns) noexcept nogil:
    memset(wheel, 0, sizeof(wheel_t))
    wheel.now_tick = now_ns >> TICK_SHIFT


cdef void timer_arm(wheel_t *wheel, conn_t *conn, uint64_t deadline_ns) noexcept nogil:
    # Rounded up, so that a deadline never fires early; the slot under the hand is the past.
    cdef uint64_t tick = (deadline_ns >> TICK_SHIFT) + 1
    cdef uint32_t slot
    if tick <= wheel.now_tick:
        tick = wheel.now_tick + 1
    elif tick > wheel.now_tick + TIMER_SLOTS - 1:
        tick = wheel.now_tick + TIMER_SLOTS - 1
    slot = <uint32_t>(tick % TIMER_SLOTS)
    conn.deadline_ns = deadline_ns
    if conn.timer_slot == slot:
        return
    timer_unlink(wheel, conn)
    conn.timer_slot = slot
    conn.timer_prev = NULL
    conn.timer_next = wheel.slots[slot]
    if conn.timer_next != NULL:
        conn.timer_next.timer_prev = conn
    wheel.slots[slot] = conn
    wheel.occupied[slot >> 6] |= <uint64_t>1 << (slot & 63)
    wheel.armed += 1


cdef void timer_disarm(wheel_t *wheel, conn_t *conn) noexcept nogil:
    conn.deadline_ns = 0
    timer_unlink(wheel, conn)


cdef void timer_unlink(wheel_t *wheel, conn_t *conn) noexcept nogil:
    cdef uint32_t slot = conn.timer_slot
    if slot == <uint32_t>TIMER_NONE:
        return
    if conn.timer_prev != NULL:
        conn.timer_prev.timer_next = conn.timer_next
    else:
        wheel.slots[slot] = conn.timer_next
        if conn.timer_next == NULL:
            wheel.occupied[slot >> 6] &= ~(<uint64_t>1 << (slot & 63))
    if conn.timer_next != NULL:
        conn.timer_next.timer_prev = conn.timer_prev
    conn.timer_slot = TIMER_NONE
    wheel.armed -= 1


cdef conn_t *timer_expired(wheel_t *wheel, uint64_t now_ns) noexcept nogil:
    cdef uint64_t target = now_ns >> TICK_SHIFT
    cdef uint64_t distance
    cdef conn_t *conn
    cdef uint64_t deadline_ns
    while True:
        conn = wheel.slots[wheel.now_tick % TIMER_SLOTS]
        if conn != NULL:
            timer_unlink(wheel, conn)
            if conn.deadline_ns <= now_ns:
                return conn
            # Waited here because its deadline is further away than one turn.
            deadline_ns = conn.deadline_ns
            timer_arm(wheel, conn, deadline_ns)
            continue
        if wheel.now_tick >= target:
            return NULL
        distance = next_occupied(wheel)
        if wheel.now_tick + distance > target:
            wheel.now_tick = target
        else:
            wheel.now_tick += distance


cdef uint64_t next_occupied(wheel_t *wheel) noexcept nogil:
    """Ticks from the hand to the next slot with a deadline, 1 to a whole turn."""
    cdef uint32_t start = <uint32_t>((wheel.now_tick + 1) % TIMER_SLOTS)
    cdef uint32_t word = start >> 6
    cdef uint32_t _i
    cdef uint64_t bits = wheel.occupied[word] & (~<uint64_t>0 << (start & 63))
    cdef uint32_t slot
    if wheel.armed == 0:
        return TIMER_SLOTS
    for _i in range(TIMER_SLOTS // 64 + 1):
        if bits != 0:
            slot = (word << 6) + <uint32_t>lowest_bit(bits)
            return (slot + TIMER_SLOTS - start) % TIMER_SLOTS + 1
        word = (word + 1) % (TIMER_SLOTS // 64)
        bits = wheel.occupied[word]
    return TIMER_SLOTS


cdef int timer_wait_ms(wheel_t *wheel, uint64_t now_ns) noexcept nogil:
    cdef uint64_t due_ns
    if wheel.armed == 0:
        return -1
    due_ns = (wheel.now_tick + next_occupied(wheel)) << TICK_SHIFT
    if due_ns <= now_ns:
        return 0
    return <int>((due_ns - now_ns) // 1000000 + 1)
