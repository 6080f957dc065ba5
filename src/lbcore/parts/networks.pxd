"""Lists of IP networks."""

from libc.stdint cimport uint8_t, uint32_t

from lbcore.structs cimport networks_t
from lbcore.sys.linux cimport sockaddr_in6

# Room for that many, none filled in, to be freed with free(); or NULL.
cdef networks_t *networks_new(uint32_t count) noexcept nogil
# Fills one in: `octets` is 4 or 16, `bits` of them count.
cdef void networks_set(networks_t *networks, uint32_t place, const uint8_t *address, uint8_t octets,
                       uint8_t bits) noexcept nogil
# Whether the address is in one of them; IPv4 that came in over IPv6 is IPv4.
cdef bint networks_hold(const networks_t *networks, const sockaddr_in6 *address) noexcept nogil
