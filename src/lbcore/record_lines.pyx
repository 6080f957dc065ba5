"""Records as lines of JSON; the usual finished connection without a Python object for each.

A line costs half a microsecond here and fifteen where Python puts it together, which was a quarter of all
that a short plaintext connection cost. So the usual connection, which was forwarded and ended without an
error, is written here; of whoever was refused, held back or cut off by a system error there is more to say,
and Python does that. Both write the same line: tests compare them. All lines pass one buffer, so they stay in
order and leave together.
"""

import json
import logging

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from lbcore.codes import REASONS
from lbcore.records import SCHEMA

from lbcore.codes cimport REASON_CLIENT_GONE
from lbcore.parts.hexadecimal cimport put_hexadecimal
from lbcore.parts.mapped cimport MAPPED_AT, is_mapped
from lbcore.sys.linux cimport (
    AF_INET,
    AF_INET6,
    gmtime_r,
    inet_ntop,
    memcpy,
    ntohs,
    sockaddr_in,
    sockaddr_in6,
    strftime,
    strlen,
    tm,
)
from lbcore.structs cimport SCOPE_NONE, name_t

LOG = logging.getLogger("lbcore")

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *out_length) except NULL

cdef enum:
    FIXED_MAX = 1024             # of a line: names of fields, numbers, addresses, words of the core
    TEXTS = 3                    # app, client, upstream
    TEXT_MAX = 256


cdef class LineBuffer:
    """The lines of one engine.

    Args:
        settings: a RecordLines.

    Raises:
        MemoryError: out of memory.
    """

    def __cinit__(self, settings):
        self.lines = <char *>malloc(LINES_BYTES)
        if self.lines == NULL:
            raise MemoryError

    def __init__(self, settings):
        self.write = settings.write
        self.line = settings.line
        self.begin = f'{{"v":{SCHEMA},"ts":"'.encode()
        self.head = f'Z","event":"conn.close","node":{json.dumps(settings.node)},"id":"'.encode()
        self.line_max = len(self.head) + TEXTS * TEXT_MAX + FIXED_MAX    # the node's name may be all escapes
        self.second = -1

    def __dealloc__(self):
        free(self.lines)

    cdef bint take(self, const record_t *entry, bytes boot, str app) except -1:
        cdef Py_ssize_t app_length
        cdef const char *app_text
        cdef Py_ssize_t reason_length
        cdef const char *reason = PyUnicode_AsUTF8AndSize(REASONS[<int>entry.reason], &reason_length)
        cdef char *at
        if not is_usual(entry) or app is None:
            return False
        app_text = PyUnicode_AsUTF8AndSize(app, &app_length)
        if not is_plain(app_text, app_length) or not name_is_plain(entry.client):
            return False
        if not name_is_plain(entry.upstream):
            return False
        if self.is_full():
            self.flush()
        at = self.lines + self.length
        at = put_text(at, self.begin, len(self.begin))
        at = self.put_time(at, entry.wall_ns)
        at = put_text(at, self.head, len(self.head))
        at = put_text(at, boot, len(boot))
        at = put_count(put(at, b"-"), entry.worker)
        at = put_count(put(at, b"-"), entry.id)
        at = put_text(put(at, b'","app":"'), app_text, app_length)
        at = put_address(put(at, b'","src":"'), &entry.source)
        at = put(at, b'"')
        at = put_peer(at, entry)
        at = put_way(at, entry)
        at = put_text(put(at, b',"reason":"'), reason, reason_length)
        at = put(at, b'"}\n')
        self.length = at - self.lines
        self.count += 1
        return True

    cdef put_text_of(self, record):
        cdef bytes text
        line = self.line(record)
        if line is None:
            return
        text = line.encode("utf-8", "backslashreplace") + b"\n"
        if self.length + len(text) > LINES_BYTES:
            self.flush()
        if len(text) > LINES_BYTES:
            self.send(text, 1)
            return
        put_text(self.lines + self.length, text, len(text))
        self.length += len(text)
        self.count += 1

    cdef bint is_full(self) noexcept:
        return self.length + self.line_max > LINES_BYTES

    cdef flush(self):
        cdef bytes lines = self.lines[:self.length]
        cdef size_t count = self.count
        self.length = 0
        self.count = 0
        if count:
            self.send(lines, count)

    cdef send(self, bytes lines, size_t count):
        try:
            self.write(lines)
        except BaseException:            # SystemExit too: the records after it are wanted
            LOG.exception("record_lines.write failed; %d records are lost", count)

    cdef char *put_time(self, char *at, uint64_t wall_ns) noexcept:
        """RFC 3339, to the millisecond; the `Z` is in the head."""
        cdef uint64_t ms = (wall_ns + 500000) // 1000000
        cdef int64_t second = <int64_t>(ms // 1000)
        cdef tm broken_down
        if second != self.second:
            gmtime_r(&second, &broken_down)
            strftime(self.stamp, sizeof(self.stamp), b"%Y-%m-%dT%H:%M:%S", &broken_down)
            self.second = second
        at = put(put(at, self.stamp), b".")
        return put_thousandths(at, <uint32_t>(ms % 1000))


# ---- what is usual -------------------------------------------------------------------------------

cdef bint is_usual(const record_t *entry) noexcept nogil:
    """It was forwarded, and there is nothing to explain."""
    return (
        entry.forwarded
        and entry.reason != REASON_CLIENT_GONE
        and entry.sys_errno == 0
        and entry.tls_error == NULL
        and entry.waited_ns == 0
        and entry.would_deny == 0
        and entry.scope == SCOPE_NONE
    )


cdef bint is_plain(const char *text, size_t length) noexcept nogil:
    """Nothing in it needs an escape, in JSON or on a terminal."""
    cdef size_t i
    if length > TEXT_MAX:
        return False
    for i in range(length):
        if not 32 <= <uint8_t>text[i] <= 126 or text[i] == b'"' or text[i] == b"\\":
            return False
    return True


cdef bint name_is_plain(const name_t *name) noexcept nogil:
    return name == NULL or is_plain(name.text, name.length)


# ---- the parts of a line: each is written at `at`, and answers where it ends -----------------------

cdef char *put_peer(char *at, const record_t *entry) noexcept nogil:
    if entry.client != NULL:
        at = put(put_text(put(at, b',"client":"'), entry.client.text, entry.client.length), b'"')
    if entry.serial_length > 0:
        at = put(put_hexadecimal(put(at, b',"serial":"'), entry.serial, entry.serial_length), b'"')
    if entry.tls:
        at = put(at, b',"tls":"TLSv1.3"')
    if entry.cipher != NULL:
        at = put(put(put(at, b',"cipher":"'), entry.cipher), b'"')
    return at


cdef char *put_way(char *at, const record_t *entry) noexcept nogil:
    if entry.upstream != NULL:
        at = put(put_text(put(at, b',"upstream":"'), entry.upstream.text, entry.upstream.length), b'"')
    at = put_count(put(at, b',"attempts":'), entry.attempts)
    if entry.handshake_ns > 0:
        at = put_milliseconds(put(at, b',"handshake_ms":'), entry.handshake_ns)
    if entry.connect_ns > 0:
        at = put_milliseconds(put(at, b',"connect_ms":'), entry.connect_ns)
    at = put_milliseconds(put(at, b',"duration_ms":'), entry.duration_ns)
    at = put_count(put(at, b',"bytes_in":'), entry.bytes_in)
    return put_count(put(at, b',"bytes_out":'), entry.bytes_out)


cdef char *put(char *at, const char *text) noexcept nogil:
    return put_text(at, text, strlen(text))


cdef char *put_text(char *at, const char *text, size_t length) noexcept nogil:
    memcpy(at, text, length)
    return at + length


cdef char *put_count(char *at, uint64_t count) noexcept nogil:
    cdef char digits[20]
    cdef int used = 0
    while True:
        used += 1
        digits[20 - used] = <char>(48 + count % 10)
        count //= 10
        if count == 0:
            return put_text(at, &digits[20 - used], used)


cdef char *put_thousandths(char *at, uint32_t count) noexcept nogil:
    at[0] = <char>(48 + count // 100)
    at[1] = <char>(48 + count // 10 % 10)
    at[2] = <char>(48 + count % 10)
    return at + 3


cdef char *put_milliseconds(char *at, uint64_t ns) noexcept nogil:
    """As Python writes the number: to the microsecond, without zeros at the end but for the first."""
    cdef uint64_t us = (ns + 500) // 1000
    at = put_thousandths(put(put_count(at, us // 1000), b"."), <uint32_t>(us % 1000))
    while (at - 1)[0] == b"0" and (at - 2)[0] != b".":
        at -= 1
    return at


cdef char *put_address(char *at, const sockaddr_in6 *address) noexcept nogil:
    cdef const sockaddr_in *four = <const sockaddr_in *>address
    cdef const uint8_t *octets = <const uint8_t *>address.sin6_addr.s6_addr
    cdef char text[64]
    if address.sin6_family == AF_INET:
        inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text))
    elif is_mapped(octets):
        inet_ntop(AF_INET, octets + MAPPED_AT, text, sizeof(text))
    else:
        inet_ntop(AF_INET6, octets, text, sizeof(text))
        return put_count(put(put(put(at, b"["), text), b"]:"), ntohs(address.sin6_port))
    return put_count(put(put(at, text), b":"), ntohs(address.sin6_port))
