"""Least connections: choosing an upstream and counting it in one step, and passive health."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from lbcore.structs cimport app_t, upstream_t


# Where this connection's scans start, all of them: the next one in turn.
cdef uint32_t balance_turn(app_t *app) noexcept nogil
# Index of the chosen upstream, counted in its in_flight; -1: none is in the pool.
# `tried` holds `tried_count` indexes to leave out. Any thread.
cdef int balance_pick(app_t *app, uint32_t start, const uint16_t *tried, int tried_count,
                      uint64_t now_ns) noexcept nogil
# The one way to give it back.
cdef void balance_give(upstream_t *upstream) noexcept nogil
# What a dial showed about it.
cdef void balance_dialled(upstream_t *upstream) noexcept nogil
cdef void balance_failed(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil
cdef bint balance_is_ejected(upstream_t *upstream, uint64_t now_ns) noexcept nogil
