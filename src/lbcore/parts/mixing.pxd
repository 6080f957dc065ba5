"""Numbers whose bits all depend on all bits of another one."""

from libc.stdint cimport uint64_t


cdef inline uint64_t mixed(uint64_t seed) noexcept nogil:
    """splitmix64's finalizer (Steele, Lea and Flood, 2014)."""
    seed = (seed ^ (seed >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    seed = (seed ^ (seed >> 27)) * <uint64_t>0x94d049bb133111eb
    return seed ^ (seed >> 31)
