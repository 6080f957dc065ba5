"""The policy as a frozen table in each snapshot.

It may only refuse: whoever it lets through still needs the callback's verdict. Unknown serials,
disabled clients and applications that are not allowed are answered here in nanoseconds, so a crowd of
strangers never wakes Python. Open addressing with linear probing at most half full; built once by the
engine, read by every worker.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc

from lbcore.codes cimport REASON_APP_NOT_ALLOWED, REASON_CLIENT_DISABLED, REASON_NONE, REASON_UNKNOWN_SERIAL
from lbcore.parts.cells cimport policy_unref
from lbcore.structs cimport policy_entry_t
from lbcore.sys.atomics cimport refs_start
from lbcore.sys.linux cimport memcmp, memcpy


cdef policy_t *policy_new(uint32_t serials, uint32_t clients, uint32_t apps) noexcept nogil:
    cdef uint32_t slots = 8
    cdef policy_t *policy = <policy_t *>calloc(1, sizeof(policy_t))
    if policy == NULL:
        return NULL
    refs_start(&policy.refs)
    while slots < serials * 2:
        slots *= 2
    policy.mask = slots - 1
    policy.client_count = clients
    policy.app_count = apps
    policy.entries = <policy_entry_t *>calloc(slots, sizeof(policy_entry_t))
    policy.clients = <name_t **>calloc(clients + 1, sizeof(name_t *))
    policy.apps = <name_t **>calloc(apps + 1, sizeof(name_t *))
    policy.allowed = <uint8_t *>calloc(<size_t>clients * apps + 1, 1)
    if policy.entries == NULL or policy.clients == NULL or policy.apps == NULL or policy.allowed == NULL:
        policy_unref(policy)
        return NULL
    return policy


cdef uint32_t serial_hash(const uint8_t *serial, uint8_t length) noexcept nogil:
    # FNV-1a. Only serials the operator wrote are in the table, so nobody can choose collisions in it.
    cdef uint64_t hash = <uint64_t>0xcbf29ce484222325
    cdef uint8_t i
    for i in range(length):
        hash = (hash ^ serial[i]) * <uint64_t>0x100000001b3
    return <uint32_t>(hash ^ (hash >> 32))


cdef policy_entry_t *entry_find(policy_t *policy, const uint8_t *serial, uint8_t length) noexcept nogil:
    """The serial's entry, or the empty one where it belongs."""
    cdef uint32_t at = serial_hash(serial, length) & policy.mask
    cdef policy_entry_t *entry
    while True:
        entry = &policy.entries[at]
        if entry.serial_length == 0:
            return entry
        if entry.serial_length == length and memcmp(entry.serial, serial, length) == 0:
            return entry
        at = (at + 1) & policy.mask


cdef bint policy_add(policy_t *policy, const uint8_t *serial, uint8_t length, uint32_t client,
                     bint disabled) noexcept nogil:
    cdef policy_entry_t *entry = entry_find(policy, serial, length)
    if entry.serial_length != 0:
        return False
    memcpy(entry.serial, serial, length)
    entry.serial_length = length
    entry.client = client
    entry.disabled = disabled
    return True


cdef void policy_allow(policy_t *policy, uint32_t client, uint32_t app) noexcept nogil:
    policy.allowed[<size_t>client * policy.app_count + app] = 1


cdef reason_t policy_judge(policy_t *policy, const uint8_t *serial, uint8_t length, name_t *app,
                           name_t **out_client) noexcept nogil:
    cdef policy_entry_t *entry
    cdef uint32_t i
    out_client[0] = NULL
    if length == 0:
        return REASON_UNKNOWN_SERIAL
    entry = entry_find(policy, serial, length)
    if entry.serial_length == 0:
        return REASON_UNKNOWN_SERIAL
    out_client[0] = policy.clients[entry.client]
    if entry.disabled:
        return REASON_CLIENT_DISABLED
    for i in range(policy.app_count):
        if policy.apps[i].length == app.length and memcmp(policy.apps[i].text, app.text, app.length) == 0:
            if policy.allowed[<size_t>entry.client * policy.app_count + i]:
                return REASON_NONE
            break
    return REASON_APP_NOT_ALLOWED
