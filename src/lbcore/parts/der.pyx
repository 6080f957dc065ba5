"""Reading a certificate's DER (X.690) where the TLS library has no call for it.

Only definite lengths and low tag numbers, which is all that DER certificates have (RFC 5280). Every
length is checked against what encloses it; anything odd is a bad certificate. Signature and chain are
the TLS library's business and were verified before; dates are so too, but are read here for a certificate
that is seen again.

Pure functions, any thread.
"""

from libc.stdint cimport int64_t, uint8_t

from lbcore.codes cimport (
    REASON_BAD_CERTIFICATE,
    REASON_BAD_SERIAL,
    REASON_NONE,
    REASON_WEAK_KEY,
    REASON_WRONG_PURPOSE,
)
from lbcore.structs cimport SERIAL_OCTETS_MAX
from lbcore.sys.linux cimport memcmp, memcpy

cdef enum:
    TAG_INTEGER = 0x02
    TAG_BIT_STRING = 0x03
    TAG_OCTET_STRING = 0x04
    TAG_OID = 0x06
    TAG_UTF8 = 0x0c
    TAG_PRINTABLE = 0x13
    TAG_IA5 = 0x16
    TAG_UTC_TIME = 0x17
    TAG_GENERALIZED_TIME = 0x18
    TAG_SEQUENCE = 0x30
    TAG_SET = 0x31
    TAG_VERSION = 0xa0           # [0] EXPLICIT, in TBSCertificate
    TAG_EXTENSIONS = 0xa3        # [3] EXPLICIT, in TBSCertificate
    RSA_OCTETS_MIN = 256         # with the first bit set: 2 048 bits

# 2.5.4.3, id-at-commonName
cdef const char *OID_COMMON_NAME = b"\x55\x04\x03"
# 2.5.29.37, id-ce-extKeyUsage
cdef const char *OID_EXT_KEY_USAGE = b"\x55\x1D\x25"
# 1.3.6.1.5.5.7.3.2, id-kp-clientAuth
cdef const char *OID_CLIENT_AUTH = b"\x2B\x06\x01\x05\x05\x07\x03\x02"
# 1.2.840.113549.1.1.1 and .10, rsaEncryption and id-RSASSA-PSS: all but the last octet
cdef const char *OID_RSA_STEM = b"\x2A\x86\x48\x86\xF7\x0D\x01\x01"


cdef struct span_t:              # what is left to read
    const uint8_t *at
    size_t left


cdef struct item_t:              # one tag-length-value
    uint8_t tag
    span_t body


cdef bint item_next(span_t *span, item_t *out_item) noexcept nogil:
    cdef size_t length
    cdef size_t octets
    cdef size_t header = 2
    if span.left < 2:
        return False
    out_item.tag = span.at[0]
    length = span.at[1]
    if length & 0x80:
        octets = length & 0x7f
        if octets == 0 or octets > 3 or span.left < 2 + octets:
            return False
        length = 0
        while header < 2 + octets:
            length = (length << 8) | span.at[header]
            header += 1
    if span.left - header < length:
        return False
    out_item.body.at = span.at + header
    out_item.body.left = length
    span.at += header + length
    span.left -= header + length
    return True


cdef bint item_expect(span_t *span, uint8_t tag, item_t *out_item) noexcept nogil:
    return item_next(span, out_item) and out_item.tag == tag


cdef bint item_ahead(span_t *span, int number, item_t *out_item) noexcept nogil:
    """That many items are read; the last one is the one."""
    cdef int _i
    for _i in range(number):
        if not item_next(span, out_item):
            return False
    return True


cdef bint enter_certificate(const uint8_t *der, size_t length, span_t *out_fields) noexcept nogil:
    """The fields of TBSCertificate, from the serial number on."""
    cdef span_t whole
    cdef item_t item
    cdef span_t ahead
    whole.at = der
    whole.left = length
    if not item_expect(&whole, TAG_SEQUENCE, &item):
        return False
    whole = item.body
    if not item_expect(&whole, TAG_SEQUENCE, &item):
        return False
    out_fields[0] = item.body
    ahead = out_fields[0]
    if item_next(&ahead, &item) and item.tag == TAG_VERSION:
        out_fields[0] = ahead
    return True


cdef reason_t der_serial(const uint8_t *der, size_t length, uint8_t *out_serial,
                         uint8_t *out_length) noexcept nogil:
    cdef span_t fields
    cdef item_t serial
    cdef const uint8_t *at
    cdef size_t left
    out_length[0] = 0
    if not enter_certificate(der, length, &fields) or not item_expect(&fields, TAG_INTEGER, &serial):
        return REASON_BAD_CERTIFICATE
    at = serial.body.at
    left = serial.body.left
    if left == 0 or at[0] & 0x80:            # empty, or negative in two's complement
        return REASON_BAD_SERIAL
    while left > 0 and at[0] == 0:           # DER pads a positive number whose first bit is set
        at += 1
        left -= 1
    if left == 0 or left > SERIAL_OCTETS_MAX:
        return REASON_BAD_SERIAL
    memcpy(out_serial, at, left)
    out_length[0] = <uint8_t>left
    return REASON_NONE


cdef bint der_common_name(const uint8_t *der, size_t length, const uint8_t **out_name,
                          size_t *out_length) noexcept nogil:
    cdef span_t fields
    cdef item_t item
    cdef item_t attribute
    cdef item_t oid
    cdef item_t value
    cdef bint found = False
    if not enter_certificate(der, length, &fields):
        return False
    if not item_ahead(&fields, 5, &item):    # serialNumber, signature, issuer, validity, subject
        return False
    fields = item.body                       # of the subject: a sequence of sets of attributes
    while item_expect(&fields, TAG_SET, &item):
        while item_expect(&item.body, TAG_SEQUENCE, &attribute):
            if not item_expect(&attribute.body, TAG_OID, &oid) or not item_next(&attribute.body, &value):
                return False
            if oid.body.left == 3 and memcmp(oid.body.at, OID_COMMON_NAME, 3) == 0:
                if value.tag in (TAG_UTF8, TAG_PRINTABLE, TAG_IA5):
                    out_name[0] = value.body.at
                    out_length[0] = value.body.left
                    found = True
    return found


cdef bint der_validity(const uint8_t *der, size_t length, validity_t *out_validity) noexcept nogil:
    cdef span_t fields
    cdef item_t item
    if not enter_certificate(der, length, &fields):
        return False
    if not item_ahead(&fields, 4, &item):    # serialNumber, signature, issuer, validity
        return False
    fields = item.body
    return (
        item.tag == TAG_SEQUENCE
        and read_time(&fields, &out_validity.from_s)
        and read_time(&fields, &out_validity.until_s)
    )


cdef bint read_time(span_t *span, int64_t *out_s) noexcept nogil:
    """As RFC 5280, 4.1.2.5 has it: with seconds, in UTC, two digits of the year until 2049, four after."""
    cdef item_t item
    cdef int digits[14]
    cdef int count = 0
    cdef int missing = 0
    cdef int year
    if not item_next(span, &item):
        return False
    if item.tag == TAG_UTC_TIME:
        missing = 2
    elif item.tag != TAG_GENERALIZED_TIME:
        return False
    if item.body.left != <size_t>(15 - missing) or item.body.at[14 - missing] != c"Z":
        return False
    for count in range(14 - missing):
        if not c"0" <= item.body.at[count] <= c"9":
            return False
        digits[missing + count] = item.body.at[count] - c"0"
    if missing:
        digits[0], digits[1] = (1, 9) if digits[2] >= 5 else (2, 0)
    year = 1000 * digits[0] + 100 * digits[1] + pair(digits, 2)
    out_s[0] = days_since_1970(year, pair(digits, 4), pair(digits, 6)) * 86400
    out_s[0] += 3600 * pair(digits, 8) + 60 * pair(digits, 10) + pair(digits, 12)
    return 1 <= pair(digits, 4) <= 12 and pair(digits, 6) >= 1


cdef int pair(const int *digits, int at) noexcept nogil:
    return 10 * digits[at] + digits[at + 1]


cdef int64_t days_since_1970(int year, int month, int day) noexcept nogil:
    """Of the Gregorian calendar. Years begin in March here, so that a leap day is the last of its year."""
    cdef int64_t years = year - 1 if month <= 2 else year
    cdef int64_t months = (month + 9) % 12
    cdef int64_t leap_days = years // 4 - years // 100 + years // 400
    return 365 * years + leap_days + (153 * months + 2) // 5 + day - 1 - 719468


cdef reason_t der_fit_for_client(const uint8_t *der, size_t length) noexcept nogil:
    cdef span_t fields
    cdef item_t item
    cdef reason_t reason
    if not enter_certificate(der, length, &fields):
        return REASON_BAD_CERTIFICATE
    if not item_ahead(&fields, 5, &item):    # serialNumber, signature, issuer, validity, subject
        return REASON_BAD_CERTIFICATE
    if not item_expect(&fields, TAG_SEQUENCE, &item):
        return REASON_BAD_CERTIFICATE
    reason = judge_key(item.body)
    if reason != REASON_NONE:
        return reason
    while item_next(&fields, &item):
        if item.tag == TAG_EXTENSIONS:
            return judge_extensions(item.body)
    return REASON_NONE if fields.left == 0 else REASON_BAD_CERTIFICATE


cdef reason_t judge_key(span_t key_info) noexcept nogil:
    """SubjectPublicKeyInfo: an RSA modulus below 2 048 bits is too weak; other keys are the library's."""
    cdef item_t algorithm
    cdef item_t oid
    cdef item_t bits
    cdef item_t item
    cdef span_t inside
    if not item_expect(&key_info, TAG_SEQUENCE, &algorithm):
        return REASON_BAD_CERTIFICATE
    if not item_expect(&algorithm.body, TAG_OID, &oid):
        return REASON_BAD_CERTIFICATE
    if oid.body.left != 9 or memcmp(oid.body.at, OID_RSA_STEM, 8) != 0:
        return REASON_NONE
    if not item_expect(&key_info, TAG_BIT_STRING, &bits) or bits.body.left < 1:
        return REASON_BAD_CERTIFICATE
    inside.at = bits.body.at + 1             # after the count of unused bits
    inside.left = bits.body.left - 1
    if not item_expect(&inside, TAG_SEQUENCE, &item):
        return REASON_BAD_CERTIFICATE
    inside = item.body
    if not item_expect(&inside, TAG_INTEGER, &item):
        return REASON_BAD_CERTIFICATE
    while item.body.left > 0 and item.body.at[0] == 0:
        item.body.at += 1
        item.body.left -= 1
    if item.body.left == RSA_OCTETS_MIN:
        return REASON_NONE if item.body.at[0] & 0x80 else REASON_WEAK_KEY
    return REASON_NONE if item.body.left > RSA_OCTETS_MIN else REASON_WEAK_KEY


cdef reason_t judge_extensions(span_t wrapped) noexcept nogil:
    """Without an extended key usage the key may be used for any purpose (RFC 5280, 4.2.1.12); with one,
    client authentication must be among them."""
    cdef item_t item
    cdef item_t extension
    cdef item_t oid
    cdef item_t value
    cdef span_t extensions
    if not item_expect(&wrapped, TAG_SEQUENCE, &item):
        return REASON_BAD_CERTIFICATE
    extensions = item.body
    while item_expect(&extensions, TAG_SEQUENCE, &extension):
        if not item_expect(&extension.body, TAG_OID, &oid):
            return REASON_BAD_CERTIFICATE
        if oid.body.left != 3 or memcmp(oid.body.at, OID_EXT_KEY_USAGE, 3) != 0:
            continue
        while item_next(&extension.body, &value):
            if value.tag == TAG_OCTET_STRING:
                return judge_purposes(value.body)
        return REASON_BAD_CERTIFICATE
    return REASON_NONE if extensions.left == 0 else REASON_BAD_CERTIFICATE


cdef reason_t judge_purposes(span_t wrapped) noexcept nogil:
    cdef item_t item
    cdef span_t purposes
    if not item_expect(&wrapped, TAG_SEQUENCE, &item):
        return REASON_BAD_CERTIFICATE
    purposes = item.body
    while item_expect(&purposes, TAG_OID, &item):
        if item.body.left == 8 and memcmp(item.body.at, OID_CLIENT_AUTH, 8) == 0:
            return REASON_NONE
    return REASON_WRONG_PURPOSE
