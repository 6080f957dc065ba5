"""An order travels through the inboxes of all workers and lives as long as one of them may touch it.

Whoever gave it waits for `pending` to reach zero, with a deadline. A worker that is late still finds
the order and the snapshot in it: both go with the last reference, on whatever thread that is.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

from lbcore.parts.cells cimport name_unref, snapshot_ref, snapshot_unref
from lbcore.structs cimport WORKERS_MAX
from lbcore.sys.atomics cimport refs_give, refs_start, refs_take, word_add, word_write
from lbcore.sys.linux cimport write


cdef order_t *order_new(order_kind_t kind, snapshot_t *snapshot, uint32_t workers,
                        int done_fd) noexcept nogil:
    cdef order_t *order = <order_t *>calloc(1, sizeof(order_t))
    cdef uint32_t _i
    if order == NULL:
        return NULL
    order.kind = kind
    order.snapshot = snapshot_ref(snapshot)
    order.done_fd = done_fd
    word_write(&order.pending, workers)
    refs_start(&order.refs)
    for _i in range(workers):
        refs_take(&order.refs)
    return order


cdef void order_done(order_t *order) noexcept nogil:
    cdef uint64_t one = 1
    if word_add(&order.pending, <uint64_t>-1) == 0:
        write(order.done_fd, &one, sizeof(one))
    order_unref(order)


cdef void order_unref(order_t *order) noexcept nogil:
    cdef uint32_t worker
    cdef uint32_t i
    if not refs_give(&order.refs):
        return
    for worker in range(WORKERS_MAX):
        for i in range(order.info_counts[worker]):
            name_unref(order.infos[worker][i].client)
            name_unref(order.infos[worker][i].upstream)
        free(order.infos[worker])
    snapshot_unref(order.snapshot)
    free(order)
