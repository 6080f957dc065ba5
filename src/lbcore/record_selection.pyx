"""Which records are told of: an even share of what was forwarded, so many refusals of one kind a second.

It is decided before a Record is made. That one and its line cost some 16 microseconds of Python, which a
storm of refusals would have to pay for each, whereas counting it costs less than half of one.

Pure but for what it remembers: the time is passed in. One thread at a time.
"""

from lbcore.records import KINDS_MAX, SUM_WINDOW, RefusalSum


cdef class Selector:
    """What one engine remembers.

    Args:
        settings: a RecordSelection.
        now: the monotonic clock, in seconds.
    """

    def __init__(self, settings, double now):
        self.sample = settings.sample
        self.limit = -1 if settings.refusals is None else settings.refusals
        self.ends = now + SUM_WINDOW
        self.seen = {}

    cpdef bint finished(self) except -1:
        """An even share of the connections rather than a random one: a count times 1/share is exact."""
        self.share += self.sample
        if self.share < 0.999999:
            return False
        self.share -= 1.0
        return True

    cpdef bint refused(self, str app, str client, str reason) except -1:
        """Counts it. Strangers of one app and reason are one kind: addresses are free, so a kind for each
        would fill the table and the disk."""
        cdef Py_ssize_t count
        cdef tuple kind = (app, client, reason)
        if self.limit < 0:
            return True
        if kind not in self.seen and len(self.seen) >= KINDS_MAX:
            kind = (app, None, reason)   # as many as apps and reasons
        count = self.seen.get(kind, 0) + 1
        self.seen[kind] = count
        if count <= self.limit:
            return True
        self.summed = True
        return False

    cpdef list roll(self, double now):
        return [] if now < self.ends else self.flush(now)

    cpdef list flush(self, double now):
        cdef Py_ssize_t count
        cdef list sums = []
        for kind, count in self.seen.items():
            if count > self.limit:
                sums.append(RefusalSum(*kind, count - self.limit))
        self.seen.clear()
        self.summed = False
        self.ends = now + SUM_WINDOW
        return sums

    cpdef double left(self, double now) except -1:
        """Seconds of the window."""
        return max(0.0, self.ends - now)
