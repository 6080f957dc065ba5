"""Memory that runs out must not cost those who are connected: an idle connection has given its TLS buffers
back, and wants them again with its next byte. So nobody is accepted unless some memory is still to be had
for them. It is asked for and given back at once, by mmap because malloc would keep it, untouched, so that it
costs no pages; and not for every connection: HEADROOM_LOOK of them use up less than a worker's share of it.

A limit of the process (RLIMIT_AS, RLIMIT_DATA) and strict overcommitment are noticed so. A kernel that hands
out more than it has, or a cgroup, kills instead: that is for `node.max_connections` to prevent.

What has run out, memory or descriptors, is not had by trying at once: accepting pauses for a moment.

Any worker, no shared state.
"""

from lbcore.sys.atomics cimport counter_add
from lbcore.sys.linux cimport MAP_ANONYMOUS, MAP_FAILED, MAP_PRIVATE, PROT_READ, PROT_WRITE, mmap, munmap

cdef enum:
    HEADROOM_LOOK = 32           # accepted connections from one look to the next
    SHARE = 2097152              # bytes: what they need until they have authenticated
    KEPT = 4194304               # bytes for everybody else
    PAUSE_NS = 100000000         # how long a worker that lacks something leaves its listeners alone


cdef bint headroom_is_short(worker_t *worker) noexcept nogil:
    cdef size_t wanted = <size_t>SHARE * worker.node.worker_count + KEPT
    cdef void *memory
    if worker.headroom_left > 0:
        worker.headroom_left -= 1
        return False
    memory = mmap(NULL, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    if memory == MAP_FAILED:
        headroom_ran_out(worker)
        return True
    munmap(memory, wanted)
    worker.headroom_left = HEADROOM_LOOK
    return False


cdef void headroom_ran_out(worker_t *worker) noexcept nogil:
    counter_add(&worker.node.accept_errors, 1)
    worker.accept_paused_until_ns = worker.now_ns + PAUSE_NS
