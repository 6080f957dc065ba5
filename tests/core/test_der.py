"""Reading certificates: what real ones say, and nothing but an answer for whatever else is put in.

The probe lays each input against a page that cannot be read, so one octet too far is a crash.
"""

import datetime
import random
from functools import cache
from types import ModuleType

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

CLIENT, SERVER, ANY = (
    ExtendedKeyUsageOID.CLIENT_AUTH,
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
)
Key = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@cache
def key_of(kind: str) -> Key:
    """One key of each kind; RSA is slow to make."""
    if kind == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind))


def certificate(
    *,
    serial: int = 0x4F3A910C7712A05E,
    kind: str = "ec",
    usage: list[x509.ObjectIdentifier] | None = None,
    before_usage: bool = False,
    start: datetime.datetime = datetime.datetime(2026, 1, 1),
    end: datetime.datetime = datetime.datetime(2027, 1, 1),
) -> bytes:
    """A certificate as a CA would issue it, DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "alice")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key_of(kind).public_key())
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
    )
    if before_usage:
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("alice")]), critical=False)
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=before_usage)
    return builder.sign(key_of("ec"), hashes.SHA256()).public_bytes(Encoding.DER)


class TestSerial:
    @pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFF, 0x4F3A910C7712A05E, 2**159 - 1])
    def test_a_positive_integer_without_leading_zeros(self, probes: ModuleType, serial: int) -> None:
        expected = serial.to_bytes((serial.bit_length() + 7) // 8, "big")
        assert probes.serial_of(certificate(serial=serial)) == ("", expected)

    @given(st.integers(1, 2**159 - 1))
    def test_any_that_a_ca_may_issue(self, probes: ModuleType, serial: int) -> None:
        assert probes.serial_of(certificate(serial=serial)) == (
            "",
            serial.to_bytes((serial.bit_length() + 7) // 8, "big"),
        )

    @pytest.mark.parametrize(
        ("octets", "reason", "serial"),
        [
            (b"", "bad_serial", b""),
            (b"\x00", "bad_serial", b""),
            (b"\xff", "bad_serial", b""),
            (b"\x80" + b"\0" * 7, "bad_serial", b""),
            (b"\x00\x80", "", b"\x80"),
            (b"\x00" + b"\xff" * 20, "", b"\xff" * 20),
            (b"\x01" * 20, "", b"\x01" * 20),
            (b"\x01" * 21, "bad_serial", b""),
        ],
    )
    def test_what_is_no_serial(self, probes: ModuleType, octets: bytes, reason: str, serial: bytes) -> None:
        assert probes.serial_of(with_serial(octets)) == (reason, serial)

    def test_version_1_has_no_version_field(self, probes: ModuleType) -> None:
        assert probes.serial_of(tlv(0x30, tlv(0x30, tlv(2, b"\x05")))) == ("", b"\x05")

    @pytest.mark.parametrize(
        "der",
        [
            b"",
            b"\x30",
            b"\x30\x80",  # indefinite length
            b"\x30\x84\x00\x00\x00\x01",  # more length octets than any certificate needs
            b"\x31\x02\x30\x00",  # a SET
            b"\x30\x03\x30\x05\x02",  # the inner one is longer than the outer one
            b"\x30\x04\x30\x02\x04\x00",  # an OCTET STRING for a serial number
        ],
    )
    def test_what_is_no_certificate(self, probes: ModuleType, der: bytes) -> None:
        assert probes.serial_of(der) == ("bad_certificate", b"")
        assert probes.fit_for_client(der) == "bad_certificate"


class TestFitForClient:
    @pytest.mark.parametrize(
        ("usage", "reason"),
        [
            ([CLIENT], ""),
            ([SERVER, CLIENT], ""),
            ([SERVER], "wrong_purpose"),
            ([ANY], "wrong_purpose"),
            (None, ""),  # RFC 5280, 4.2.1.12: without the extension, any purpose
        ],
    )
    def test_purpose(
        self, probes: ModuleType, usage: list[x509.ObjectIdentifier] | None, reason: str
    ) -> None:
        assert probes.fit_for_client(certificate(usage=usage)) == reason
        assert probes.fit_for_client(certificate(usage=usage, before_usage=True)) == reason

    @pytest.mark.parametrize(
        ("kind", "reason"),
        [("ec", ""), ("ed25519", ""), ("1024", "weak_key"), ("2047", "weak_key"), ("2048", ""), ("3072", "")],
    )
    def test_key(self, probes: ModuleType, kind: str, reason: str) -> None:
        assert probes.fit_for_client(certificate(kind=kind, usage=[CLIENT])) == reason


SECONDS = st.datetimes(datetime.datetime(1950, 1, 1), datetime.datetime(9999, 12, 31, 23, 59, 59)).map(
    lambda moment: moment.replace(microsecond=0)
)


def seconds(moment: datetime.datetime) -> int:
    return int((moment - datetime.datetime(1970, 1, 1)).total_seconds())


class TestValidity:
    @given(st.lists(SECONDS, min_size=2, max_size=2, unique=True).map(sorted))
    def test_any_dates_that_a_ca_may_write(self, probes: ModuleType, dates: list[datetime.datetime]) -> None:
        start, end = dates
        assert probes.validity_of(certificate(start=start, end=end)) == (seconds(start), seconds(end))

    @pytest.mark.parametrize(
        "date",
        [
            datetime.datetime(1950, 1, 1),
            datetime.datetime(1999, 12, 31, 23, 59, 59),
            datetime.datetime(2000, 2, 29),
            datetime.datetime(2000, 3, 1),
            datetime.datetime(2049, 12, 31, 23, 59, 59),  # the last with two digits
            datetime.datetime(2050, 1, 1),
            datetime.datetime(2100, 2, 28, 23, 59, 59),  # no leap year
            datetime.datetime(2100, 3, 1),
        ],
    )
    def test_where_calendars_have_their_corners(self, probes: ModuleType, date: datetime.datetime) -> None:
        end = datetime.datetime(9999, 12, 31, 23, 59, 59)
        assert probes.validity_of(certificate(start=date, end=end)) == (seconds(date), seconds(end))

    @pytest.mark.parametrize(
        ("tag", "text"),
        [
            (0x17, b"2601010000Z"),  # without seconds
            (0x17, b"260101000000+0100"),
            (0x17, b"260101000000"),
            (0x17, b"26010100000/Z"),
            (0x17, b"26010100000:Z"),
            (0x17, b"20260101000000Z"),
            (0x17, b"260001000000Z"),
            (0x17, b"261301000000Z"),
            (0x17, b"260100000000Z"),
            (0x17, b""),
            (0x18, b"260101000000Z"),
            (0x18, b"20260101000000.5Z"),
            (0x18, b"-0260101000000Z"),
            (0x13, b"260101000000Z"),
        ],
    )
    def test_what_is_no_date(self, probes: ModuleType, tag: int, text: bytes) -> None:
        good = tlv(0x17, b"250101000000Z")
        assert probes.validity_of(with_dates(good + good)) == (1735689600, 1735689600)
        assert probes.validity_of(with_dates(tlv(tag, text) + good)) is None
        assert probes.validity_of(with_dates(good + tlv(tag, text))) is None

    def test_one_date_is_not_enough(self, probes: ModuleType) -> None:
        assert probes.validity_of(with_dates(tlv(0x17, b"250101000000Z"))) is None

    def test_neither_its_first_nor_its_last_second_counts(self, probes: ModuleType) -> None:
        def holds(now_ns: int) -> bool:
            return probes.validity_holds(100, 102, now_ns)

        assert [holds(s * 10**9) for s in (99, 100, 101, 102, 103)] == [False, False, True, False, False]
        assert (holds(101 * 10**9 - 1), holds(102 * 10**9 - 1)) == (False, True)
        assert not probes.validity_holds(0, 0, 0)
        assert not probes.validity_holds(-(2**40), -1, 0)


class TestBrokenInput:
    """Whatever comes, the answer is a reason; and only a real certificate is a good one."""

    @given(st.binary(max_size=300))
    def test_noise(self, probes: ModuleType, noise: bytes) -> None:
        probes.serial_of(noise)
        probes.validity_of(noise)
        assert probes.fit_for_client(noise) in ("bad_certificate", "wrong_purpose", "weak_key")

    def test_every_truncation(self, probes: ModuleType) -> None:
        for der in samples():
            for length in range(len(der)):
                assert probes.fit_for_client(der[:length]) == "bad_certificate"
                assert probes.serial_of(der[:length]) == ("bad_certificate", b"")
                assert probes.validity_of(der[:length]) is None

    def test_every_octet_changed(self, probes: ModuleType) -> None:
        chance = random.Random(20260101)
        for der in samples():
            for at in range(len(der)):
                for value in {0, 0x7F, 0x80, 0x81, 0x82, 0x83, 0x84, 0xFF, chance.randrange(256)}:
                    look_at(probes, der[:at] + bytes([value]) + der[at + 1 :])

    @given(
        which=st.integers(0, 3),
        edits=st.lists(
            st.tuples(st.integers(0, 2000), st.integers(0, 4), st.binary(max_size=6)), min_size=1, max_size=6
        ),
    )
    def test_cut_and_pasted(
        self, probes: ModuleType, which: int, edits: list[tuple[int, int, bytes]]
    ) -> None:
        der = samples()[which]
        for at, removed, put_in in edits:
            at %= len(der) + 1
            der = der[:at] + put_in + der[at + removed :]
        look_at(probes, der)


@cache
def samples() -> tuple[bytes, ...]:
    return (
        certificate(usage=[CLIENT]),
        certificate(usage=[SERVER, CLIENT], before_usage=True, serial=0x80),
        certificate(kind="2048", usage=[CLIENT]),
        certificate(),
    )


def look_at(probes: ModuleType, der: bytes) -> None:
    reason, serial = probes.serial_of(der)
    assert reason in ("", "bad_serial", "bad_certificate")
    assert (reason == "") == (1 <= len(serial) <= 20)
    assert not serial.startswith(b"\0")
    assert probes.fit_for_client(der) in ("", "bad_certificate", "weak_key", "wrong_purpose")
    probes.validity_of(der)


def tlv(tag: int, body: bytes) -> bytes:
    """Tag, length, value with a definite length."""
    length = len(body)
    if length < 0x80:
        return bytes([tag, length]) + body
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + body


def with_serial(octets: bytes) -> bytes:
    """The start of a version 3 certificate with these octets for a serial number."""
    return tlv(0x30, tlv(0x30, tlv(0xA0, tlv(2, b"\x02")) + tlv(2, octets)))


def with_dates(dates: bytes) -> bytes:
    """A version 1 certificate as far as its dates."""
    return tlv(0x30, tlv(0x30, tlv(2, b"\x05") + tlv(0x30, b"") + tlv(0x30, b"") + tlv(0x30, dates)))
