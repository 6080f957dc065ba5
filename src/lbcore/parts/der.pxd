"""The few fields of an X.509 certificate that the data plane needs, straight from its DER."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from lbcore.codes cimport reason_t
from lbcore.structs cimport validity_t


# Copies the serial number, big endian without leading zeros. REASON_NONE, or REASON_BAD_SERIAL when it
# is not a positive integer of 1 to 20 octets, or REASON_BAD_CERTIFICATE when the DER is broken.
cdef reason_t der_serial(const uint8_t *der, size_t length, uint8_t *out_serial,
                         uint8_t *out_length) noexcept nogil
# REASON_NONE when a client may authenticate with this leaf: extended key usage clientAuth is there, and
# an RSA key has at least 2 048 bits.
cdef reason_t der_fit_for_client(const uint8_t *der, size_t length) noexcept nogil
# The last common name of the subject, as it is in the certificate: any bytes that its owner could talk the CA
# into. False: none that is ASCII or UTF-8, or not a certificate. Points into `der`.
cdef bint der_common_name(const uint8_t *der, size_t length, const uint8_t **out_name,
                          size_t *out_length) noexcept nogil
# From when until when it is valid. False: not to be read, and nothing is to be believed of it.
cdef bint der_validity(const uint8_t *der, size_t length, validity_t *out_validity) noexcept nogil


cdef inline bint validity_covers(const validity_t *validity, uint64_t wall_ns) noexcept nogil:
    """Its first and its last second do not count, so that no library is asked what it makes of them."""
    cdef int64_t now_s = <int64_t>(wall_ns // 1000000000)
    return validity.from_s < now_s < validity.until_s
