"""From the core's structs to Python values: addresses, names, serials, records, open connections."""

from libc.stdint cimport uint8_t, uint64_t

from lbcore.codes import REASONS, STAGES
from lbcore.limits import scope_name
from lbcore.records import Record

from lbcore.record_lines cimport ADDRESS_MAX, put_address


cdef str show_address(const sockaddr_in6 *address):
    cdef char text[ADDRESS_MAX]
    return text[:put_address(text, address) - text].decode("ascii")


cdef object show_name(const name_t *name):
    return None if name == NULL else name.text[:name.length].decode("utf-8", "replace")


cdef object show_serial(const uint8_t *serial, uint8_t length):
    return int.from_bytes((<const char *>serial)[:length], "big") if length else None


cdef object milliseconds(uint64_t ns):
    """To the microsecond, in whole numbers, as `record_lines` writes them."""
    return <double>((ns + 500) // 1000) / 1000


cdef object read_record(const record_t *entry, str boot, dict apps):
    return Record(
        "conn.close" if entry.forwarded else "conn.deny",
        f"{boot}-{entry.worker}-{entry.id}",
        entry.wall_ns / 1e9,
        apps.get(entry.app_id),
        show_address(&entry.source),
        STAGES[<int>entry.stage],
        REASONS[<int>entry.reason],
        show_name(entry.client),
        show_serial(entry.serial, entry.serial_length),
        (<const char *>entry.leaf)[:entry.leaf_length] if entry.leaf != NULL else None,
        entry.claimed,
        scope_name(entry.scope),
        milliseconds(entry.waited_ns) if entry.waited_ns else None,
        REASONS[<int>entry.would_deny] if entry.would_deny else None,
        "TLSv1.3" if entry.tls else None,
        (<bytes>entry.cipher).decode() if entry.cipher != NULL else None,
        (<bytes>entry.tls_error).decode() if entry.tls_error != NULL else None,
        show_name(entry.upstream),
        entry.attempts,
        milliseconds(entry.handshake_ns) if entry.handshake_ns else None,
        milliseconds(entry.connect_ns) if entry.connect_ns else None,
        milliseconds(entry.duration_ns),
        entry.bytes_in,
        entry.bytes_out,
        entry.sys_errno,
    )


cdef dict read_connection(const conn_info_t *info, int worker, str boot, dict apps):
    return {
        "id": f"{boot}-{worker}-{info.id}",
        "app": apps.get(info.app_id),
        "stage": STAGES[<int>info.stage],
        "client": show_name(info.client),
        "serial": show_serial(info.serial, info.serial_length),
        "source": show_address(&info.source),
        "upstream": show_name(info.upstream),
        "upstream_local": show_address(&info.upstream_local) if info.upstream_local.sin6_port else None,
        "age_s": info.age_ns / 1e9,
        "bytes_in": info.bytes_in,
        "bytes_out": info.bytes_out,
    }
