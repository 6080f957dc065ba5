"""Choosing an upstream and counting it, in one step."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from lbcore.structs cimport app_t, upstream_t
from lbcore.sys.atomics cimport counter_next


cdef struct choice_t:
    upstream_t *upstream         # counted in its in_flight; borrowed
    bint probing                 # this connection is the one that may find out whether it is back


cdef inline uint32_t balance_turn(app_t *app) noexcept nogil:
    """Where this connection's scans start, all of them: the next one in turn."""
    return <uint32_t>counter_next(&app.rotor)


# False: nobody can be picked. `tried` holds `tried_count` marks to leave out.
# Any thread.
cdef bint balance_pick(app_t *app, uint32_t turn, const uint16_t *tried, int tried_count,
                       uint64_t now_ns, choice_t *out_choice) noexcept nogil
# The same by affinity: the client with this hash comes to the same upstream again.
cdef bint balance_pick_for(app_t *app, uint64_t client, const uint16_t *tried, int tried_count,
                           uint64_t now_ns, choice_t *out_choice) noexcept nogil
# The one way to give it back.
cdef void balance_give(upstream_t *upstream) noexcept nogil
# A hash of names and addresses for affinity, the same on every machine.
cdef uint64_t balance_hash(const void *data, size_t length) noexcept nogil
