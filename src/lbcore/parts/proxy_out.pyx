"""Telling an upstream who the client is: the PROXY protocol (haproxy.org, proxy-protocol.txt).

Sent once, as the first bytes of a connection, in front of TLS as well. Version 1 is one line with the two
addresses. Version 2 is binary, and what comes behind its addresses is made of (type, length, value):

    0x05  unique id: the connection's, the same as in its record
    0x20  SSL, for clients that have proven who they are: version, cipher, common name, and the client's
          certificate as DER (subtype 0x28)
    0xe0  the client's name in the configuration    these three are from the range for private use, whose
    0xe1  its serial, as `openssl x509 -serial`     meaning the two sides agree upon: see the README
    0xe2  the application

A certificate's names are text that a stranger chose; here they are counted bytes, and nothing they say can
end a field. One thread: the worker of the connection.
"""

from libc.stdint cimport uint16_t
from libc.stdio cimport snprintf

from lbcore.parts.der cimport der_common_name
from lbcore.parts.hexadecimal cimport put_hexadecimal
from lbcore.parts.mapped cimport MAPPED_AT, is_mapped
from lbcore.structs cimport PROXY_NONE, PROXY_V1, PROXY_V2_TLS
from lbcore.sys.linux cimport (
    AF_INET,
    AF_INET6,
    getsockname,
    inet_ntop,
    memcpy,
    memset,
    ntohs,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    socklen_t,
    strlen,
)
from lbcore.tls.engine cimport tls_peer_t

cdef enum:
    LINE_MAX = 108               # version 1, with a NUL
    CERTIFICATE_MAX = 49152      # a longer one does not fit with the rest
    NAME_MAX = 4096
    TYPE_SSL_VERSION = 0x21
    TYPE_SSL_CN = 0x22
    TYPE_SSL_CIPHER = 0x23
    TYPE_SSL_CLIENT_CERT = 0x28
    TYPE_CLIENT = 0xe0
    TYPE_SERIAL = 0xe1
    TYPE_APPLICATION = 0xe2
    CLIENT_SSL = 0x01
    CLIENT_CERT_CONN = 0x02
    CLIENT_CERT_SESS = 0x04

cdef struct end_t:               # of a connection: an address as the header has it
    int family
    const uint8_t *address
    uint16_t port                # network byte order


cdef struct writer_t:
    uint8_t *at


cdef size_t proxy_write(conn_t *conn, worker_t *worker, uint8_t *out) noexcept nogil:
    cdef sockaddr_in6 local
    cdef socklen_t length = sizeof(local)
    cdef end_t source
    cdef end_t target
    if conn.app.proxy == PROXY_NONE:
        return 0
    memset(&local, 0, sizeof(local))
    if conn.target.sin6_family != 0:     # who is behind the proxy in front of us wanted to go there
        local = conn.target
    elif getsockname(conn.client.fd, <sockaddr *>&local, &length) != 0:
        return 0
    end_of(&conn.source, &source)
    end_of(&local, &target)
    if is_four_in_six(&source) and is_four_in_six(&target):
        unmap(&source)
        unmap(&target)
    if source.family != target.family:   # a socket that is not of TCP
        source.family = 0
    if conn.app.proxy == PROXY_V1:
        return write_line(&source, &target, out)
    return write_binary(conn, worker, &source, &target, out)


cdef void end_of(const sockaddr_in6 *address, end_t *out_end) noexcept nogil:
    cdef const sockaddr_in *four = <const sockaddr_in *>address
    out_end.family = address.sin6_family
    out_end.port = address.sin6_port     # in the same place as that of IPv4
    if address.sin6_family == AF_INET:
        out_end.address = <const uint8_t *>&four.sin_addr
    elif address.sin6_family == AF_INET6:
        out_end.address = <const uint8_t *>&address.sin6_addr
    else:
        out_end.family = 0
        out_end.address = NULL


cdef bint is_four_in_six(const end_t *end) noexcept nogil:
    return end.family == AF_INET6 and is_mapped(end.address)


cdef void unmap(end_t *end) noexcept nogil:
    """IPv4 that came in over IPv6 is IPv4; one end alone cannot be, and a header may say so."""
    end.family = AF_INET
    end.address += MAPPED_AT


# ---- version 1 -----------------------------------------------------------------------------------

cdef size_t write_line(const end_t *source, const end_t *target, uint8_t *out) noexcept nogil:
    cdef char source_text[46]
    cdef char target_text[46]
    if source.family == 0:
        memcpy(out, b"PROXY UNKNOWN\r\n", 15)
        return 15
    inet_ntop(source.family, source.address, source_text, sizeof(source_text))
    inet_ntop(target.family, target.address, target_text, sizeof(target_text))
    return <size_t>snprintf(
        <char *>out, LINE_MAX, b"PROXY TCP%d %s %s %d %d\r\n", <int>(4 if source.family == AF_INET else 6),
        source_text, target_text, <int>ntohs(source.port), <int>ntohs(target.port))


# ---- version 2 -----------------------------------------------------------------------------------

cdef size_t write_binary(conn_t *conn, worker_t *worker, const end_t *source, const end_t *target,
                         uint8_t *out) noexcept nogil:
    cdef writer_t writer
    cdef size_t length
    writer.at = out + PROXY_FIXED
    memcpy(out, proxy_signature(), PROXY_SIGNATURE)
    out[12] = PROXY_PROXY if source.family != 0 else PROXY_LOCAL
    out[13] = 0
    if source.family != 0:
        out[13] = PROXY_TCP4 if source.family == AF_INET else PROXY_TCP6
        put(&writer, source.address, 4 if source.family == AF_INET else 16)
        put(&writer, target.address, 4 if source.family == AF_INET else 16)
        put(&writer, &source.port, 2)
        put(&writer, &target.port, 2)
    put_id(&writer, conn, worker)
    if conn.app.proxy == PROXY_V2_TLS:
        put_identity(&writer, conn, worker)
    length = <size_t>(writer.at - out)
    put_length(out + 14, length - PROXY_FIXED)
    return length


cdef void put(writer_t *writer, const void *data, size_t length) noexcept nogil:
    memcpy(writer.at, data, length)
    writer.at += length


cdef void put_length(uint8_t *at, size_t length) noexcept nogil:
    at[0] = <uint8_t>(length >> 8)
    at[1] = <uint8_t>length


cdef void put_field(writer_t *writer, uint8_t kind, const void *data, size_t length) noexcept nogil:
    writer.at[0] = kind
    put_length(writer.at + 1, length)
    writer.at += 3
    put(writer, data, length)


cdef void put_id(writer_t *writer, conn_t *conn, worker_t *worker) noexcept nogil:
    cdef char text[80]
    cdef int length = snprintf(text, sizeof(text), b"%s-%u-%llu", worker.node.boot, worker.number,
                               <unsigned long long>conn.id)
    put_field(writer, PROXY_UNIQUE_ID, text, <size_t>length)


cdef void put_identity(writer_t *writer, conn_t *conn, worker_t *worker) noexcept nogil:
    cdef char serial[40]
    cdef char *end
    if conn.proven:
        put_ssl(writer, conn, worker)
    if conn.client_name != NULL:
        put_field(writer, TYPE_CLIENT, conn.client_name.text, conn.client_name.length)
    if conn.serial_length > 0:
        end = put_hexadecimal(serial, conn.serial, conn.serial_length)
        put_field(writer, TYPE_SERIAL, serial, <size_t>(end - serial))
    put_field(writer, TYPE_APPLICATION, conn.app.name.text, conn.app.name.length)


cdef void put_ssl(writer_t *writer, conn_t *conn, worker_t *worker) noexcept nogil:
    cdef uint8_t *start = writer.at
    cdef tls_peer_t peer
    cdef const char *cipher = worker.tls_engine.cipher(conn.client.tls)
    cdef const uint8_t *name
    cdef size_t length
    start[0] = PROXY_SSL
    start[3] = CLIENT_SSL | CLIENT_CERT_CONN | CLIENT_CERT_SESS
    memset(start + 4, 0, 4)              # the certificate was verified
    writer.at += 8
    put_field(writer, TYPE_SSL_VERSION, b"TLSv1.3", 7)
    if cipher != NULL:
        put_field(writer, TYPE_SSL_CIPHER, cipher, strlen(cipher))
    if worker.tls_engine.peer(conn.client.tls, &peer):
        if der_common_name(peer.leaf, peer.leaf_length, &name, &length) and length <= NAME_MAX:
            put_field(writer, TYPE_SSL_CN, name, length)
        if peer.leaf_length <= CERTIFICATE_MAX:
            put_field(writer, TYPE_SSL_CLIENT_CERT, peer.leaf, peer.leaf_length)
    put_length(start + 1, <size_t>(writer.at - start) - 3)
