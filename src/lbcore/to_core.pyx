"""From Python values to the core's cells: names, networks, TLS generations, policy tables."""

import re
from base64 import b64decode
from contextlib import suppress

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from lbcore.revocation import read_revoked
from lbcore.settings import read_pem, revocation_lists

from lbcore.parts.cells cimport name_new, policy_unref, tls_new, tls_unref
from lbcore.parts.der cimport der_validity
from lbcore.parts.networks cimport networks_new, networks_set
from lbcore.parts.policy cimport policy_add, policy_allow, policy_new
from lbcore.parts.revoked cimport revoked_new, revoked_set
from lbcore.structs cimport revoked_t, validity_t
from lbcore.sys.atomics cimport counter_next, counter_t
from lbcore.tls.engine cimport tls_material_t

cdef counter_t last_id

PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)


cdef uint64_t new_cell_id() noexcept:
    return counter_next(&last_id) + 1


cdef name_t *make_name(str text) except NULL:
    cdef bytes encoded = text.encode("utf-8", "replace")
    cdef name_t *name = name_new(encoded, <uint32_t>len(encoded))
    if name == NULL:
        raise MemoryError
    return name


cdef networks_t *make_networks(tuple networks) except? NULL:
    """From `addresses.read_networks`; NULL: there are none."""
    cdef networks_t *made
    cdef bytes address
    if not networks:
        return NULL
    made = networks_new(<uint32_t>len(networks))
    if made == NULL:
        raise MemoryError
    for i, (address, bits) in enumerate(networks):
        networks_set(made, <uint32_t>i, address, <uint8_t>len(address), <uint8_t>bits)
    return made


cdef tls_generation_t *make_tls(const tls_engine_t *engine, object settings) except NULL:
    cdef char problem[512]
    cdef const char *names[16]
    cdef tls_material_t material
    cdef tls_generation_t *generation
    cdef bytes cert = read_pem(settings.cert)
    cdef bytes key = read_pem(settings.key)
    cdef bytes client_ca = read_pem(settings.client_ca)
    cdef list alpn = [name.encode() for name in settings.alpn]   # ServerTLS has checked them
    if client_ca.count(b"-BEGIN CERTIFICATE-") != 1:
        raise ValueError("client_ca: exactly one certificate, that of the CA that issues client certificates")
    for label, text in (("cert", cert), ("key", key), ("client_ca", client_ca)):
        check_pem(label, text)
    for i in range(len(alpn)):
        names[i] = <const char *>(<bytes>alpn[i])
    material.certificate = cert
    material.key = key
    material.ca = client_ca
    material.alpn = names
    material.alpn_count = <int>len(alpn)
    generation = tls_new()
    if generation == NULL:
        raise MemoryError
    generation.engine = engine
    generation.id = new_cell_id()
    set_ca_validity(generation, client_ca)
    generation.config = engine.config_new(&material, problem, sizeof(problem))
    if generation.config == NULL:
        tls_unref(generation)
        raise ValueError(f"tls: {problem.decode('utf-8', 'replace')}")
    lists = revocation_lists(settings)
    if lists:
        try:
            generation.revoked = make_revoked(read_revoked(lists, client_ca))
        except BaseException:
            tls_unref(generation)
            raise
    return generation


cdef set_ca_validity(tls_generation_t *generation, bytes pem):
    """What cannot be read stays unknown: then each certificate is verified in full each time. Whether it is
    a certificate at all is for the engine to say."""
    body = PEM_CERTIFICATE.search(pem)
    cdef bytes der = b""
    cdef validity_t validity
    with suppress(ValueError):
        der = b64decode(body[1]) if body else b""
    if der_validity(der, len(der), &validity):
        generation.ca_validity = validity


cdef tls_generation_t *make_client_tls(const tls_engine_t *engine, object settings) except NULL:
    """From an UpstreamTLS."""
    cdef char problem[512]
    cdef tls_material_t material
    cdef tls_generation_t *generation
    cdef bytes ca = read_pem(settings.ca)
    cdef bytes cert = read_pem(settings.cert) if settings.cert is not None else None
    cdef bytes key = read_pem(settings.key) if settings.key is not None else None
    for label, text in (("ca", ca), ("cert", cert), ("key", key)):
        if text is not None:
            check_pem(label, text)
    material.ca = ca
    material.certificate = <const char *>cert if cert is not None else NULL
    material.key = <const char *>key if key is not None else NULL
    material.alpn_count = 0
    generation = tls_new()
    if generation == NULL:
        raise MemoryError
    generation.engine = engine
    generation.id = new_cell_id()
    generation.config = engine.client_config_new(&material, problem, sizeof(problem))
    if generation.config == NULL:
        tls_unref(generation)
        raise ValueError(f"tls: {problem.decode('utf-8', 'replace')}")
    return generation


def check_pem(label, text):
    """Raises ValueError naming what is no PEM text."""
    if b"\0" in text or b"-----BEGIN" not in text:
        raise ValueError(f"{label}: not PEM text")


cdef revoked_t *make_revoked(object found) except NULL:
    cdef bytes serial
    cdef uint64_t ends_ns = min(int(found.ends.timestamp()) * 10**9, 2**64 - 1)   # the year 2554
    cdef revoked_t *revoked = revoked_new(<uint32_t>len(found.serials))
    if revoked == NULL:
        raise MemoryError
    for i, number in enumerate(found.serials):
        serial = number.to_bytes((number.bit_length() + 7) // 8, "big")
        revoked_set(revoked, <uint32_t>i, serial, <uint8_t>len(serial))
    revoked.ends_ns = ends_ns
    return revoked


cdef policy_t *make_policy(list clients) except NULL:
    cdef policy_t *policy
    cdef bytes serial
    apps = sorted({app for client in clients for app in client.apps})
    columns = {app: i for i, app in enumerate(apps)}
    serials = [number for client in clients for number in client.serials]
    if len(set(serials)) != len(serials):
        raise ValueError("clients: the same serial is there twice")
    policy = policy_new(<uint32_t>len(serials), <uint32_t>len(clients), <uint32_t>len(apps))
    if policy == NULL:
        raise MemoryError
    try:
        for i, app in enumerate(apps):
            policy.apps[i] = make_name(app)
        for i, client in enumerate(clients):
            policy.clients[i] = make_name(client.name)
            for app in client.apps:
                policy_allow(policy, <uint32_t>i, <uint32_t>columns[app])
            for number in client.serials:
                serial = number.to_bytes((number.bit_length() + 7) // 8, "big")
                policy_add(policy, serial, <uint8_t>len(serial), <uint32_t>i, client.disabled)
    except BaseException:
        policy_unref(policy)
        raise
    return policy
