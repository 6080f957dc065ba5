"""What an authorizer can read in a certificate: names that strangers chose, dates, and damage."""

from __future__ import annotations

import datetime as dt
import ipaddress
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from kit.racing import at_once

from lbcore import PeerCertificate

KEY = ec.generate_private_key(ec.SECP256R1())
STARTS = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
ENDS = dt.datetime(2027, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


def peer(
    *names: tuple[x509.ObjectIdentifier, str],
    sans: list[x509.GeneralName] | None = None,
    raw_sans: bytes | None = None,
    serial: int = 5,
) -> PeerCertificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in names]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the CA")]))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(STARTS)
        .not_valid_after(ENDS)
    )
    if sans is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
    if raw_sans is not None:
        oid = x509.SubjectAlternativeName.oid
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, raw_sans), critical=False)
    der = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    return PeerCertificate(der, serial, "192.0.2.1:1")


WHOLE = peer((NameOID.COMMON_NAME, "alice"), sans=[x509.DNSName("a.example")]).der


def test_everything_there_is() -> None:
    alice = peer(
        (NameOID.ORGANIZATION_NAME, "Example"),
        (NameOID.COMMON_NAME, "alice"),
        sans=[
            x509.DNSName("a.example"),
            x509.UniformResourceIdentifier("spiffe://example/alice"),
            x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
            x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
            x509.RFC822Name("alice@example.com"),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        ],
    )
    assert (alice.subject, alice.issuer) == ("CN=alice,O=Example", "CN=the CA")
    assert alice.common_name == "alice"
    assert alice.alternative_names == (
        ("dns", "a.example"),
        ("uri", "spiffe://example/alice"),
        ("ip", "192.0.2.7"),
        ("ip", "2001:db8::7"),
        ("email", "alice@example.com"),
    )
    assert (alice.not_before, alice.not_after) == (STARTS, ENDS)


def test_nothing_but_a_key() -> None:
    nobody = peer()
    assert (nobody.subject, nobody.common_name, nobody.alternative_names) == ("", None, ())


def test_of_several_common_names_the_last_one_counts() -> None:
    assert peer((NameOID.COMMON_NAME, "first"), (NameOID.COMMON_NAME, "last")).common_name == "last"


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable() or "\n" in text))
def test_any_name_a_stranger_chose_is_text(name: str) -> None:
    try:
        made = peer((NameOID.COMMON_NAME, name))
    except ValueError:
        return  # not even a certificate can have it
    assert made.common_name == name
    assert isinstance(made.subject, str)


def test_five_hundred_names() -> None:
    many = peer(sans=[x509.DNSName(f"host-{number}.example") for number in range(500)])
    assert len(many.alternative_names) == 500


def test_a_name_in_two_bytes_a_letter() -> None:
    """BMPString, as old directory servers write it."""
    attribute = x509.NameAttribute(NameOID.COMMON_NAME, "größe", _ASN1Type.BMPString)
    subject = x509.Name([attribute])
    builder = x509.CertificateBuilder(subject, subject, KEY.public_key(), 5, STARTS, ENDS)
    der = builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    assert "größe".encode("utf-16-be") in der
    assert (PeerCertificate(der, 5).subject, PeerCertificate(der, 5).common_name) == ("CN=größe", "größe")


def test_control_characters_come_as_they_are() -> None:
    assert peer(raw_sans=b"\x30\x05\x82\x03a\nb").alternative_names == (("dns", "a\nb"),)


def test_a_range_of_addresses_is_nobodys_name() -> None:
    assert peer(raw_sans=b"\x30\x0a\x87\x08\x0a\0\0\0\xff\0\0\0").alternative_names == ()


@pytest.mark.parametrize("raw", [b"", b"\x30\x05\x82\x03a", b"\x30\x05\x87\x03\x01\x02\x03"])
def test_alternative_names_that_are_broken_hide_nothing_else(raw: bytes) -> None:
    broken = peer((NameOID.COMMON_NAME, "alice"), raw_sans=raw)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^alternative_names: "):
            _ = broken.alternative_names
    assert broken.common_name == "alice"


def test_a_version_that_does_not_exist() -> None:
    """The parser raises an error of its own there, which is no ValueError."""
    der = WHOLE.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x09", 1)
    for name in ("certificate", "subject"):
        with pytest.raises(ValueError, match=f"^{name}: "):
            getattr(PeerCertificate(der, 5), name)


@given(st.binary(max_size=300))
def test_garbage_is_a_value_error_that_names_the_attribute(der: bytes) -> None:
    damaged = PeerCertificate(der, 5)
    for name in ("subject", "issuer", "common_name", "alternative_names", "not_before", "not_after"):
        with pytest.raises(ValueError, match=f"^{name}: "):
            getattr(damaged, name)


@given(st.data())
def test_a_damaged_certificate_raises_nothing_else(data: st.DataObject) -> None:
    der = bytearray(WHOLE)
    for _ in range(3):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    damaged = PeerCertificate(bytes(der), 5)
    for name in ("subject", "issuer", "common_name", "alternative_names", "not_before", "not_after"):
        try:
            getattr(damaged, name)
        except ValueError as error:
            said = str(error)
        else:
            said = f"{name}: "
        assert said.startswith(f"{name}: ")


def test_many_threads_read_the_same() -> None:
    alice = peer((NameOID.COMMON_NAME, "alice"))
    assert set(at_once(8, lambda: (alice.subject, alice.fingerprint, alice.not_after))) == {
        ("CN=alice", alice.fingerprint, ENDS)
    }


def test_the_core_does_without_cryptography() -> None:
    """Only who looks inside a certificate pays for the import."""
    hide = "import sys; sys.modules['cryptography'] = None; "
    code = hide + "import lbcore; print(lbcore.PeerCertificate(b'', 1))"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
