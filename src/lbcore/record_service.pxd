"""The thread that reads what workers wrote down."""

from lbcore.record_lines cimport LineBuffer
from lbcore.record_selection cimport Selector
from lbcore.structs cimport node_t, record_t, worker_t


cdef class RecordService:
    cdef node_t *node            # the engine's; not touched after `close`
    cdef object on_records       # or None
    cdef LineBuffer lines        # or None
    cdef Selector selector
    cdef object on_sums          # or None
    cdef str boot
    cdef bytes boot_text
    cdef dict app_names          # id -> name
    cdef object stopping
    cdef object thread

    # These talk to workers, so they need the GIL and may raise.
    cdef start(self, node_t *node)
    cdef bint close(self, double timeout) except -1
    cdef _drain(self, worker_t *worker, list batch)
    cdef bint _is_wanted(self, const record_t *entry) except -1
    cdef _take(self, const record_t *entry, list batch)
