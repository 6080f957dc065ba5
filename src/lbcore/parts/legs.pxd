"""Writing to one side of a connection, and keeping what its socket would not take."""

from libc.stdint cimport uint8_t

from lbcore.structs cimport leg_t, worker_t


# Sends bytes that are ready for the socket (ciphertext on a TLS leg) behind what is waiting already;
# the rest waits in leg.out. 0, or an errno: the leg is broken or memory is out.
cdef int leg_put(worker_t *worker, leg_t *leg, const uint8_t *data, size_t length) noexcept nogil
# Sends what waits. 0 (leg.out is NULL when all went), or an errno: the leg is broken.
cdef int leg_flush(worker_t *worker, leg_t *leg) noexcept nogil
# As leg_put, for payload as the other leg gave it: encrypted where this one has TLS. `length` is at most
# what move_room (path/move.pxd) makes of a read.
cdef int leg_put_payload(worker_t *worker, leg_t *leg, const uint8_t *data, size_t length) noexcept nogil
# Sends close_notify behind what is waiting; once. 0, or an errno: it will not arrive.
cdef int leg_notify(worker_t *worker, leg_t *leg) noexcept nogil
# Forgets what waits: nobody will take it.
cdef void leg_drop(worker_t *worker, leg_t *leg) noexcept nogil
# Decrypts every record in worker.io into scratch_plain, and sends what TLS itself answers (to a key
# update). Marks the end: ENDED, CLEAN. *out_problem is set, to static text, when the leg can no longer be
# read because of it. 0, or ENOMEM: and that was not the peer's doing.
cdef int leg_decrypt(worker_t *worker, leg_t *leg, size_t *out_used,
                     const char **out_problem) noexcept nogil
# Makes the worker's buffers ready for one engine call on `length` bytes of input.
cdef void leg_io(worker_t *worker, const uint8_t *data, size_t length) noexcept nogil
