"""A histogram of latencies whose size does not depend on how many there are: log-linear buckets.

A percentile is told as the end of its bucket, so it is never too good: at most 1 % too long. In the last
bucket, which has no end, the longest time is told.
"""

from libc.stdint cimport uint32_t, uint64_t


cdef uint64_t end_of(uint32_t bucket) noexcept nogil:
    """The longest time that `bucket` counts, in nanoseconds."""
    cdef int shift = 0
    if bucket >= 2 * FINE:
        shift = <int>(bucket // FINE) - 1
    return ((<uint64_t>(bucket - shift * FINE) + 1) << shift) - 1


cdef class Histogram:
    """Latencies in nanoseconds."""

    def add(self, uint64_t ns):
        counts_add(&self.counts, ns)

    def __len__(self):
        return self.counts.total

    @property
    def longest(self):
        """Exact, in nanoseconds; 0 when there are none."""
        return self.counts.longest

    def percentile(self, double share):
        """The time in nanoseconds within which that share (0 to 1) of all was done.

        Raises:
            ValueError: there are no latencies.
        """
        cdef uint64_t seen = 0
        cdef double wanted = share * self.counts.total
        cdef uint32_t bucket
        if self.counts.total == 0:
            raise ValueError("no latencies")
        for bucket in range(BUCKETS):
            seen += self.counts.counts[bucket]
            if seen > 0 and seen >= wanted and bucket < BUCKETS - 1:
                return min(end_of(bucket), self.counts.longest)
        return self.counts.longest
