"""Which records are told of. With the GIL: only the record thread asks."""


cdef class Selector:
    cdef double sample           # part of the forwarded connections that is told of
    cdef double share            # of the next one that was carried over
    cdef Py_ssize_t limit        # refusals of one kind in a window; -1: all
    cdef double ends             # the window, on the clock of `now`
    cdef dict seen               # (app, client, reason) -> refusals in this window
    cdef readonly bint summed    # some of them were beyond the limit

    # These need the GIL and may raise; whether it is told of.
    cpdef bint finished(self) except -1
    cpdef bint refused(self, str app, str client, str reason) except -1
    # The sums of a window that is over, or of this one now.
    cpdef list roll(self, double now)
    cpdef list flush(self, double now)
    cpdef double left(self, double now) except -1
