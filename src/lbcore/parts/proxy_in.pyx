"""Being told who the client is: the PROXY protocol (haproxy.org, proxy-protocol.txt, 2.1 and 2.2).

Both versions, told apart by their first byte. What cannot become a header any more is bad at once, not when
enough bytes are there. A sender that speaks for itself (LOCAL, UNKNOWN: the checks of a balancer), or for
something that is not TCP (a Unix socket, a datagram), tells no addresses, and the rest of such a header is
skipped. Of the fields behind the addresses only the checksum is looked at, if there is one.

No function here reads a byte beyond the length it is given, keeps anything, or knows about connections.
"""

from libc.stdint cimport uint16_t, uint32_t

from lbcore.parts.proxy_out cimport (
    PROXY_CRC32C,
    PROXY_FIXED,
    PROXY_LOCAL,
    PROXY_PROXY,
    PROXY_SIGNATURE,
    PROXY_TCP4,
    PROXY_TCP6,
    proxy_signature,
)
from lbcore.sys.linux cimport (
    AF_INET,
    AF_INET6,
    htons,
    inet_pton,
    memcmp,
    memcpy,
    memset,
    sockaddr_in,
    strlen,
)

cdef enum:
    LINE_MAX = 107               # version 1, with its end
    WORD = 6                     # "PROXY "
    PROTOCOL = 5                 # "TCP4 "
    UNKNOWN = 7
    ADDRESS_TEXT = 46            # the longest, with a NUL
    FIELD = 3                    # type and length of a field
    CRC_BYTES = 4
    CRC_POLYNOMIAL = 0x82f63b78  # CRC-32C, reflected (RFC 3309)

cdef struct words_t:             # what is left of a line
    const uint8_t *at
    const uint8_t *end


cdef int proxy_read(const uint8_t *data, size_t length, proxy_header_t *out) noexcept nogil:
    memset(out, 0, sizeof(proxy_header_t))
    if length == 0:
        return PROXY_MORE
    if data[0] == b"P":
        return read_line(data, length, out)
    return read_binary(data, length, out)


cdef bint begins(const uint8_t *data, size_t length, const char *expected, size_t octets) noexcept nogil:
    """As far as it is here."""
    return memcmp(data, expected, length if length < octets else octets) == 0


# ---- version 1 -----------------------------------------------------------------------------------

cdef int read_line(const uint8_t *data, size_t length, proxy_header_t *out) noexcept nogil:
    cdef size_t end = line_end(data, length)
    cdef words_t words
    if not begins(data, length, b"PROXY ", WORD):
        return PROXY_BAD
    if end == 0:
        return PROXY_MORE if length < LINE_MAX else PROXY_BAD
    words.at = data + WORD
    words.end = data + end - 2
    if words.end - words.at >= UNKNOWN and memcmp(words.at, b"UNKNOWN", UNKNOWN) == 0:
        # Whatever it says then is to be ignored.
        words.at += UNKNOWN
        return <int>end if words.at is words.end or words.at[0] == b" " else PROXY_BAD
    if words.end - words.at < PROTOCOL:
        return PROXY_BAD
    words.at += PROTOCOL
    if memcmp(words.at - PROTOCOL, b"TCP4 ", PROTOCOL) == 0:
        return <int>end if read_addresses(&words, AF_INET, out) else PROXY_BAD
    if memcmp(words.at - PROTOCOL, b"TCP6 ", PROTOCOL) == 0:
        return <int>end if read_addresses(&words, AF_INET6, out) else PROXY_BAD
    return PROXY_BAD


cdef size_t line_end(const uint8_t *data, size_t length) noexcept nogil:
    """How long the line is with its CR and LF; 0: there is no end in what it may have."""
    cdef size_t at
    cdef size_t most = length if length < LINE_MAX else LINE_MAX
    for at in range(1, most):
        if data[at] == b"\n" and data[at - 1] == b"\r":
            return at + 1
    return 0


cdef bint read_addresses(words_t *words, int family, proxy_header_t *out) noexcept nogil:
    cdef bint good = (
        read_address(words, family, &out.source) and read_address(words, family, &out.target)
        and read_port(words, &out.source) and read_port(words, &out.target)
        and words.at > words.end         # past the last word: there is none behind it
    )
    if not good:
        memset(out, 0, sizeof(proxy_header_t))
    return good


cdef size_t next_word(words_t *words) noexcept nogil:
    """How long it is. One space ends it, and only the end of the line ends the last one; moves past both."""
    cdef size_t length = 0
    if words.at > words.end:
        return 0
    while words.at + length < words.end and words.at[length] != b" ":
        length += 1
    words.at += length + 1
    return length


cdef bint read_address(words_t *words, int family, sockaddr_in6 *out) noexcept nogil:
    """inet_pton takes no zeros in front of an octet, nor a zone; nor does it see what follows a NUL."""
    cdef const uint8_t *start = words.at
    cdef size_t length = next_word(words)
    cdef char text[ADDRESS_TEXT]
    if length == 0 or length >= ADDRESS_TEXT:
        return False
    memcpy(text, start, length)
    text[length] = 0
    out.sin6_family = <uint16_t>family
    return strlen(text) == length and inet_pton(family, text, place_of(out)) == 1


cdef void *place_of(sockaddr_in6 *address) noexcept nogil:
    if address.sin6_family == AF_INET:
        return &(<sockaddr_in *>address).sin_addr
    return &address.sin6_addr


cdef bint read_port(words_t *words, sockaddr_in6 *out) noexcept nogil:
    cdef const uint8_t *digits = words.at
    cdef size_t length = next_word(words)
    cdef uint32_t port = 0
    cdef size_t i
    if length == 0 or length > 5 or (length > 1 and digits[0] == b"0"):
        return False
    for i in range(length):
        if digits[i] < b"0" or digits[i] > b"9":
            return False
        port = 10 * port + digits[i] - c"0"
    out.sin6_port = htons(<uint16_t>port)     # in the same place as that of IPv4
    return port <= 0xffff


# ---- version 2 -----------------------------------------------------------------------------------

cdef int read_binary(const uint8_t *data, size_t length, proxy_header_t *out) noexcept nogil:
    cdef size_t whole
    cdef size_t octets
    cdef size_t fields
    if not begins(data, length, proxy_signature(), PROXY_SIGNATURE):
        return PROXY_BAD
    if length < PROXY_FIXED:
        return PROXY_MORE
    whole = PROXY_FIXED + number(data + 14)
    if not known(data) or whole > PROXY_MAX:
        return PROXY_BAD
    if length < whole:
        return PROXY_MORE
    if data[12] == PROXY_LOCAL or data[13] not in (PROXY_TCP4, PROXY_TCP6):
        return <int>whole
    octets = 4 if data[13] == PROXY_TCP4 else 16
    fields = PROXY_FIXED + 2 * octets + 4
    if whole < fields or not fields_are_sound(data, fields, whole):
        return PROXY_BAD
    take(data + PROXY_FIXED, data + PROXY_FIXED + 2 * octets, octets, &out.source)
    take(data + PROXY_FIXED + octets, data + PROXY_FIXED + 2 * octets + 2, octets, &out.target)
    return <int>whole


cdef bint known(const uint8_t *data) noexcept nogil:
    """The command, and of a command that is not LOCAL the family: none, IPv4, IPv6 or Unix, each as a stream
    or as datagrams."""
    if data[12] == PROXY_LOCAL:
        return True
    return data[12] == PROXY_PROXY and data[13] in (0x00, PROXY_TCP4, 0x12, PROXY_TCP6, 0x22, 0x31, 0x32)


cdef size_t number(const uint8_t *data) noexcept nogil:
    """Two octets in network byte order."""
    return <size_t>data[0] << 8 | data[1]


cdef void take(const uint8_t *address, const uint8_t *port, size_t octets, sockaddr_in6 *out) noexcept nogil:
    out.sin6_family = <uint16_t>(AF_INET if octets == 4 else AF_INET6)
    memcpy(place_of(out), address, octets)
    memcpy(&out.sin6_port, port, 2)      # in the same place as that of IPv4


cdef bint fields_are_sound(const uint8_t *data, size_t at, size_t whole) noexcept nogil:
    """Whether they fill the rest exactly, and the checksum, which may be there once, is right."""
    cdef size_t checksum = 0
    cdef size_t length
    while at < whole:
        if whole - at < FIELD:
            return False
        length = number(data + at + 1)
        if length > whole - at - FIELD:
            return False
        if data[at] == PROXY_CRC32C:
            if checksum != 0 or length != CRC_BYTES:
                return False
            checksum = at + FIELD
        at += FIELD + length
    return checksum == 0 or crc_is_right(data, checksum, whole)


cdef bint crc_is_right(const uint8_t *data, size_t place, size_t whole) noexcept nogil:
    """Over the whole header, with zeros for the checksum itself. Bit by bit: there are 4 KiB at most, and few
    senders put one in."""
    cdef uint32_t crc = 0xffffffff
    cdef uint32_t expected = <uint32_t>(number(data + place) << 16 | number(data + place + 2))
    cdef size_t i
    cdef int _bit
    for i in range(whole):
        if i < place or i >= place + CRC_BYTES:
            crc ^= data[i]
        for _bit in range(8):
            crc = (crc >> 1) ^ (<uint32_t>CRC_POLYNOMIAL if crc & 1 else 0)
    return (crc ^ <uint32_t>0xffffffff) == expected
