"""Who is left out of the picking: by failed connections (passive), by checks (active), by the operator."""

from libc.stdint cimport uint64_t

from lbcore.structs cimport UPSTREAM_DOWN, UPSTREAM_DRAINING, app_t, upstream_flag_t, upstream_t
from lbcore.sys.atomics cimport word_read


cdef inline bint health_may_pick(upstream_t *upstream, uint64_t now_ns) noexcept nogil:
    """Whether a new connection may go there; one whose quarantine is over takes one only (health_probe)."""
    return word_read(&upstream.flags) == 0 and word_read(&upstream.quarantined_until_ns) <= now_ns


# What connections showed about it; any thread.
# A dial succeeded.
cdef void health_dialled(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil
# A dial failed; `probing`: the one that was to find out.
cdef void health_failed(app_t *app, upstream_t *upstream, bint probing, uint64_t now_ns) noexcept nogil
# A connection was reset before it had a byte, or had some.
cdef void health_was_reset(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil
cdef void health_had_bytes(upstream_t *upstream) noexcept nogil

# Of an upstream that may be picked: whether this connection may go there. *out_probing: it is the one that
# finds out whether a quarantine is over; then it calls health_dialled, health_failed or health_gave_up.
cdef bint health_probe(app_t *app, upstream_t *upstream, uint64_t now_ns, bint *out_probing) noexcept nogil
# The probing connection ended before it knew.
cdef void health_gave_up(upstream_t *upstream, uint64_t now_ns) noexcept nogil

# What a check showed. It passed: whatever kept it out but the operator is over.
cdef void health_passed(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil
cdef void health_set(upstream_t *upstream, upstream_flag_t flag, bint on) noexcept nogil
# Servers have left the pool: no more of those that stay are in quarantine than may be.
cdef void health_pool_changed(app_t *app, uint64_t now_ns) noexcept nogil
# It is new in a pool at work: slow start.
cdef void health_joined(app_t *app, upstream_t *upstream, uint64_t now_ns) noexcept nogil
