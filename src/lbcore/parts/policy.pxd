"""The native table: serial number -> client -> applications. Refuses strangers without Python."""

from libc.stdint cimport uint8_t, uint32_t

from lbcore.codes cimport reason_t
from lbcore.structs cimport name_t, policy_t


# A table with room for `serials`, every reference in it still to be filled. NULL: out of memory.
cdef policy_t *policy_new(uint32_t serials, uint32_t clients, uint32_t apps) noexcept nogil
# False: the serial is there already.
cdef bint policy_add(policy_t *policy, const uint8_t *serial, uint8_t length, uint32_t client,
                     bint disabled) noexcept nogil
cdef void policy_allow(policy_t *policy, uint32_t client, uint32_t app) noexcept nogil
# REASON_NONE when the table lets the serial into the application; *out_client is borrowed from the
# table, NULL for a stranger. Any thread that holds a reference.
cdef reason_t policy_judge(policy_t *policy, const uint8_t *serial, uint8_t length, name_t *app,
                           name_t **out_client) noexcept nogil
