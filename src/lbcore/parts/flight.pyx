"""Before a handshake is encrypted a client says very little: a ClientHello, and a second one when it is asked
for another key share (RFC 8446, 4.1.4). A library would wait for as many bytes as `GET /` announces, or make
room for what a hello does, up to 128 KiB for either. So the headers of plaintext records are looked at as
they pass, and what announces too much never reaches it. Nothing is kept but where we are.

One thread: the worker of the connection.
"""

from libc.stdint cimport uint16_t, uint32_t

from lbcore.codes cimport (
    REASON_HANDSHAKE_FAILED,
    REASON_HANDSHAKE_TOO_BIG,
    REASON_NONE,
    REASON_NOT_TLS,
)
from lbcore.structs cimport RECORD_MAX
from lbcore.tls.engine cimport RECORD_HEADER

cdef enum:
    CONTENT_HANDSHAKE = 22       # RFC 8446, 5.1
    CONTENT_SEALED = 23
    MAJOR_VERSION = 3
    CLIENT_HELLO = 1             # RFC 8446, 4
    MESSAGE_HEADER = 4
    HELLO_MAX = 8192             # bytes; with post-quantum key shares they have some 2 000


cdef uint32_t number(const uint8_t *data, int octets) noexcept nogil:
    """In network byte order."""
    cdef uint32_t value = 0
    cdef int i
    for i in range(octets):
        value = (value << 8) | data[i]
    return value


cdef reason_t flight_judge(flight_t *flight, const uint8_t *data, size_t length) noexcept nogil:
    cdef size_t at = 0
    cdef size_t passed
    cdef reason_t reason
    while at < length and not flight.sealed:
        if flight.record_left > 0:
            passed = length - at if length - at < flight.record_left else flight.record_left
            flight.record_left -= <uint16_t>passed
            flight.message_left -= <uint32_t>passed if passed < flight.message_left else flight.message_left
            at += passed
            continue
        flight.header[flight.header_length] = data[at]
        flight.header_length += 1
        at += 1
        reason = judge_header(flight)
        if reason != REASON_NONE:
            return reason
    return REASON_NONE


cdef reason_t judge_header(flight_t *flight) noexcept nogil:
    """With one byte more than before."""
    cdef const uint8_t *header = flight.header
    cdef uint32_t have = flight.header_length
    cdef uint32_t record
    if have == 1:
        return judge_content(flight)
    if have == 2 and header[1] != MAJOR_VERSION:
        return REASON_NOT_TLS
    if have < RECORD_HEADER:
        return REASON_NONE
    record = number(header + 3, 2)
    if have == RECORD_HEADER:
        return judge_record(flight, record)
    if have == RECORD_HEADER + 1 and header[RECORD_HEADER] != CLIENT_HELLO:
        return REASON_NOT_TLS
    if have < <uint32_t>FLIGHT_HEADER:
        return REASON_NONE
    flight.message_left = number(header + RECORD_HEADER + 1, 3)
    if flight.message_left > HELLO_MAX:
        return REASON_HANDSHAKE_TOO_BIG
    if record - MESSAGE_HEADER > flight.message_left:
        return REASON_HANDSHAKE_FAILED   # something behind it: only keys may follow a hello
    enter(flight, record - MESSAGE_HEADER)
    return REASON_NONE


cdef reason_t judge_content(flight_t *flight) noexcept nogil:
    if flight.header[0] == CONTENT_HANDSHAKE:
        flight.begun = True
        return REASON_NONE
    if not flight.begun:
        return REASON_NOT_TLS
    if flight.header[0] == CONTENT_SEALED:
        flight.sealed = True
    return REASON_NONE                   # what else may come then is the library's to judge


cdef reason_t judge_record(flight_t *flight, uint32_t record) noexcept nogil:
    if record > RECORD_MAX:
        return REASON_NOT_TLS
    if flight.header[0] != CONTENT_HANDSHAKE or flight.message_left > 0:
        enter(flight, record)            # of no interest, or more of the same message
        return REASON_NONE
    return REASON_NONE if record >= MESSAGE_HEADER else REASON_NOT_TLS


cdef void enter(flight_t *flight, uint32_t left) noexcept nogil:
    flight.header_length = 0
    flight.record_left = <uint16_t>left
