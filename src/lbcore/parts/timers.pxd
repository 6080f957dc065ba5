"""Deadlines of a worker's connections: one each, on the monotonic clock."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport conn_t, wheel_t


cdef void wheel_init(wheel_t *wheel, uint64_t now_ns) noexcept nogil
# Replaces the connection's deadline.
cdef void timer_arm(wheel_t *wheel, conn_t *conn, uint64_t deadline_ns) noexcept nogil
cdef void timer_disarm(wheel_t *wheel, conn_t *conn) noexcept nogil
# A connection whose deadline has passed, disarmed, or NULL when none is left.
cdef conn_t *timer_expired(wheel_t *wheel, uint64_t now_ns) noexcept nogil
# Milliseconds to sleep before the next deadline can be due; -1: none is armed.
cdef int timer_wait_ms(wheel_t *wheel, uint64_t now_ns) noexcept nogil
