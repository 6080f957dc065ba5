"""Which peers are on a list of IP networks.

A list is short and looked at once per connection, from front to back. Frozen once made; any thread.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc

from lbcore.parts.mapped cimport MAPPED_AT, is_mapped
from lbcore.structs cimport network_t
from lbcore.sys.linux cimport AF_INET, AF_INET6, memcmp, memcpy, sockaddr_in


cdef networks_t *networks_new(uint32_t count) noexcept nogil:
    cdef networks_t *networks = <networks_t *>calloc(1, sizeof(networks_t) + count * sizeof(network_t))
    if networks != NULL:
        networks.count = count
    return networks


cdef void networks_set(networks_t *networks, uint32_t place, const uint8_t *address, uint8_t octets,
                       uint8_t bits) noexcept nogil:
    memcpy(networks.items[place].address, address, octets)
    networks.items[place].octets = octets
    networks.items[place].bits = bits


cdef bint networks_hold(const networks_t *networks, const sockaddr_in6 *address) noexcept nogil:
    cdef const uint8_t *octets = <const uint8_t *>&address.sin6_addr
    cdef uint8_t count = 16
    cdef uint32_t i
    if address.sin6_family == AF_INET:
        octets = <const uint8_t *>&(<const sockaddr_in *>address).sin_addr
        count = 4
    elif address.sin6_family != AF_INET6:
        return False
    elif is_mapped(octets):
        octets += MAPPED_AT
        count = 4
    for i in range(networks.count):
        if networks.items[i].octets == count and is_in(&networks.items[i], octets):
            return True
    return False


cdef bint is_in(const network_t *network, const uint8_t *octets) noexcept nogil:
    cdef uint8_t whole = network.bits // 8
    cdef uint8_t rest = network.bits % 8
    if memcmp(network.address, octets, whole) != 0:
        return False
    return rest == 0 or (network.address[whole] ^ octets[whole]) >> (8 - rest) == 0
