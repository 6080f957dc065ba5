"""Python values out of what workers wrote. With the GIL: only Python threads read."""

from libc.stdint cimport uint8_t

from lbcore.structs cimport conn_info_t, name_t, record_t
from lbcore.sys.linux cimport sockaddr_in6


# All of these make Python objects, so they need the GIL and may raise.
cdef str show_address(const sockaddr_in6 *address)
cdef object show_name(const name_t *name)
cdef object show_serial(const uint8_t *serial, uint8_t length)
# `apps`: names by id; `boot`: the first part of every id of this process.
cdef object read_record(const record_t *entry, str boot, dict apps)
cdef dict read_connection(const conn_info_t *info, int worker, str boot, dict apps)
