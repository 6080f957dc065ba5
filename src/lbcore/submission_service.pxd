"""Sockets from Python: in to the workers, and back how they ended."""

from lbcore.application cimport Application
from lbcore.policy_service cimport PolicyService
from lbcore.record_service cimport RecordService
from lbcore.structs cimport completion_t, listener_t, message_t, node_t
from lbcore.tls.engine cimport tls_engine_t


cdef class SubmissionService:
    cdef node_t *node            # the engine's; not touched after `finish`
    cdef const tls_engine_t *tls
    cdef PolicyService policy
    cdef RecordService records
    cdef dict doors              # (application id, id of ServerTLS, id of authorizer) -> Door
    cdef object lock             # of `waiting`
    cdef dict waiting            # connection id -> (worker, on_done)
    cdef object thread
    cdef bint closing

    # These talk to workers, so they need the GIL and may raise.
    cdef start(self, node_t *node, const tls_engine_t *tls)
    cdef finish(self, double timeout)
    cdef str submit(self, Application application, int fd, object limits, object door_key,
                    object client, object on_done)
    cdef listener_t *_door(self, Application application, object tls, object authorize) except NULL
    cdef int _send(self, message_t *message, object on_done) except -2
    cdef _tell(self, completion_t *completion)
