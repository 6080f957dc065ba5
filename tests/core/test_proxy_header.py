"""Reading PROXY headers: what real ones say, and nothing but an answer for whatever else is put in.

The probe lays each input against a page that cannot be read, so one octet too far is a crash.
"""

from __future__ import annotations

import ipaddress
import random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit.proxy_header import (
    LOCAL,
    NOOP,
    PROXY,
    SIGNATURE,
    TCP4,
    TCP6,
    UDP4,
    UNIQUE_ID,
    UNIX,
    UNSPEC,
    binary,
    block,
    encode_field,
    line,
    with_checksum,
)

FOUR = "192.0.2.1:51044", "198.51.100.255:443"
SIX = "[2001:db8::1]:51044", "[2001:db8:ffff::2]:443"
LONGEST = "[1111:2222:3333:4444:5555:6666:7777:8888]:11111", "[1111:2222:3333:4444:5555:6666:7777:9999]:22222"
#: Bytes of the longest header that is taken.
MOST = 16 + 4096

#: Of the header in `test_a_known_one`, by the CRC instructions of a CPU (awscrt).
KNOWN_CRC = bytes.fromhex("e9166d07")

Found = str | tuple[int, str | None, str | None]


def read(probes: ModuleType, data: bytes) -> Found:
    found: Found = probes.proxy_header_of(data)
    return found


def samples() -> list[bytes]:
    return [
        line(*FOUR),
        line(*SIX),
        line(*LONGEST),
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 and more 1 2\r\n",
        binary(*FOUR),
        binary(*SIX),
        binary(*SIX, encode_field(UNIQUE_ID, b"id") + encode_field(NOOP, b"")),
        with_checksum(*FOUR, encode_field(UNIQUE_ID, b"id"), encode_field(NOOP, b"xyz")),
        block(LOCAL, UNSPEC),
        block(LOCAL, UNSPEC, b"whatever"),
        block(PROXY, UNIX, bytes(216)),
    ]


class TestVersion1:
    @pytest.mark.parametrize("ends", [FOUR, SIX, LONGEST])
    def test_addresses(self, probes: ModuleType, ends: tuple[str, str]) -> None:
        header = line(*ends)
        assert read(probes, header) == (len(header), *ends)

    def test_the_shortest_way_to_write_it_is_not_the_only_one(self, probes: ModuleType) -> None:
        header = b"PROXY TCP6 2001:DB8:0:0:0::0001 ::ffff:192.0.2.1 0 65535\r\n"
        assert read(probes, header) == (len(header), "[2001:db8::1]:0", "192.0.2.1:65535")

    @pytest.mark.parametrize(
        "header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN \r\n", b"PROXY UNKNOWN TCP4 x\ny \r z\r\n"]
    )
    def test_unknown(self, probes: ModuleType, header: bytes) -> None:
        """Whatever else it says is to be ignored."""
        assert read(probes, header) == (len(header), None, None)

    @pytest.mark.parametrize(
        "text",
        [
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.2 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4\t192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1\0 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
            "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
            "PROXY TCP4 2001:db8::1 198.51.100.2 1 2\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY TCP6 2001:db8::1%lo 2001:db8::2 1 2\r\n",
            "PROXY TCP6 2001:db8::1::2 2001:db8::2 1 2\r\n",
            "PROXY TCP6 [2001:db8::1] 2001:db8::2 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 1 99999\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 4294967297 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.2 0x1 2\r\n",
            "PROXY TCP4 \r\n",
            "PROXY TCP4\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.2 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY\r\n",
            "proxy TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
        ],
    )
    def test_what_is_none(self, probes: ModuleType, text: str) -> None:
        assert read(probes, text.encode()) == "bad"

    def test_a_line_has_at_most_107_bytes(self, probes: ModuleType) -> None:
        longest = b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n"
        assert len(longest) == 107
        assert read(probes, longest) == (107, None, None)
        assert read(probes, longest[:106]) == "more"
        assert read(probes, b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n") == "bad"
        assert read(probes, b"PROXY UNKNOWN " + b"x" * 93) == "bad"


class TestVersion2:
    @pytest.mark.parametrize("ends", [FOUR, SIX])
    @pytest.mark.parametrize("fields", [b"", encode_field(NOOP, b""), encode_field(0xEE, bytes(300))])
    def test_addresses(self, probes: ModuleType, ends: tuple[str, str], fields: bytes) -> None:
        header = binary(*ends, fields)
        assert read(probes, header) == (len(header), *ends)

    @pytest.mark.parametrize("command", [LOCAL, PROXY])
    @pytest.mark.parametrize("family", [UNSPEC, UDP4, 0x22, UNIX, 0x32])
    @pytest.mark.parametrize("body", [b"", b"\xff" * 216])
    def test_nobody_who_has_an_address(
        self, probes: ModuleType, command: int, family: int, body: bytes
    ) -> None:
        header = block(command, family, body)
        assert read(probes, header) == (len(header), None, None)

    @pytest.mark.parametrize("family", [TCP4, TCP6, 0x13, 0xFF])
    def test_who_speaks_for_itself_may_say_what_it_likes(self, probes: ModuleType, family: int) -> None:
        header = block(LOCAL, family, b"any")
        assert read(probes, header) == (len(header), None, None)

    @pytest.mark.parametrize("command", [0x00, 0x01, 0x10, 0x11, 0x22, 0x2F, 0x31, 0xA1])
    def test_other_versions_and_commands(self, probes: ModuleType, command: int) -> None:
        assert read(probes, block(command, TCP4, bytes(12))) == "bad"

    @pytest.mark.parametrize("family", [0x01, 0x02, 0x10, 0x13, 0x20, 0x23, 0x30, 0x33, 0x41, 0xFF])
    def test_other_families(self, probes: ModuleType, family: int) -> None:
        assert read(probes, block(PROXY, family, bytes(216))) == "bad"

    @pytest.mark.parametrize(("family", "octets"), [(TCP4, 11), (TCP6, 35), (TCP6, 12), (TCP4, 0)])
    def test_too_short_for_its_addresses(self, probes: ModuleType, family: int, octets: int) -> None:
        assert read(probes, block(PROXY, family, bytes(octets))) == "bad"

    @pytest.mark.parametrize(
        "fields", [b"\x04", b"\x04\x00", b"\x04\x00\x01", b"\x04\x00\x00\x04", b"\xee\xff\xff" + bytes(100)]
    )
    def test_fields_that_do_not_fill_the_rest(self, probes: ModuleType, fields: bytes) -> None:
        assert read(probes, binary(*FOUR, fields)) == "bad"

    def test_its_length_is_bounded(self, probes: ModuleType) -> None:
        longest = binary(*FOUR, encode_field(NOOP, bytes(MOST - 16 - 12 - 3)))
        assert len(longest) == MOST
        assert read(probes, longest) == (MOST, *FOUR)
        assert read(probes, longest[:-1]) == "more"
        too_long = binary(*FOUR, encode_field(NOOP, bytes(MOST - 16 - 12 - 2)))
        assert read(probes, too_long) == "bad"
        assert read(probes, too_long[:16]) == "bad"
        assert read(probes, block(LOCAL, UNSPEC, bytes(4097))) == "bad"


class TestChecksum:
    @given(before=st.binary(max_size=40), after=st.binary(max_size=40))
    def test_a_right_one(self, probes: ModuleType, before: bytes, after: bytes) -> None:
        header = with_checksum(*SIX, encode_field(NOOP, before), encode_field(0xEE, after))
        assert read(probes, header) == (len(header), *SIX)

    def test_a_known_one(self, probes: ModuleType) -> None:
        """CRC-32C of this header by another implementation, or both might be wrong in the same way."""
        header = binary("127.0.0.1:1", "127.0.0.1:2", bytes.fromhex("030004") + KNOWN_CRC)
        assert read(probes, header) == (len(header), "127.0.0.1:1", "127.0.0.1:2")

    def test_any_bit_that_changed(self, probes: ModuleType) -> None:
        header = with_checksum(*FOUR)
        for at in range(16, len(header)):
            for bit in range(8):
                changed = bytearray(header)
                changed[at] ^= 1 << bit
                # Its type turned into another one, it is a field like any other.
                expected = (len(header), *FOUR) if at == 28 else "bad"
                assert read(probes, bytes(changed)) == expected

    def test_two_of_them(self, probes: ModuleType) -> None:
        field = encode_field(0x03, bytes(4))
        assert read(probes, binary(*FOUR, field + field)) == "bad"

    @pytest.mark.parametrize("octets", [0, 3, 5])
    def test_of_another_length(self, probes: ModuleType, octets: int) -> None:
        assert read(probes, binary(*FOUR, encode_field(0x03, bytes(octets)))) == "bad"


class TestPieces:
    def test_every_truncation_may_still_become_one(self, probes: ModuleType) -> None:
        for header in samples():
            for length in range(len(header)):
                assert read(probes, header[:length]) == "more", header[:length]

    @given(which=st.integers(0, 11), rest=st.binary(max_size=60))
    def test_what_follows_does_not_matter(self, probes: ModuleType, which: int, rest: bytes) -> None:
        header = samples()[which]
        assert read(probes, header + rest) == read(probes, header)

    @pytest.mark.parametrize("header", [b"PROXY ", SIGNATURE], ids=["1", "2"])
    def test_a_wrong_byte_is_noticed_at_once(self, probes: ModuleType, header: bytes) -> None:
        for at in range(len(header)):
            assert read(probes, header[:at] + b"?") == "bad"

    def test_tls_is_none(self, probes: ModuleType) -> None:
        assert read(probes, b"\x16") == "bad"


class TestBrokenInput:
    """Whatever comes, there is an answer; and an address in it is one that the bytes say."""

    @given(st.binary(max_size=300))
    def test_noise(self, probes: ModuleType, noise: bytes) -> None:
        look_at(probes, noise)

    @given(st.binary(max_size=300))
    def test_noise_behind_a_beginning(self, probes: ModuleType, noise: bytes) -> None:
        for beginning in (b"PROXY ", b"PROXY TCP4 ", b"PROXY TCP6 ", SIGNATURE, SIGNATURE + b"\x21\x11\x00"):
            look_at(probes, beginning + noise)

    @given(st.text("0123456789abcdef:. \r\nTCPUNKNOWX", max_size=110))
    def test_almost_lines(self, probes: ModuleType, text: str) -> None:
        for beginning in ("PROXY ", "PROXY TCP4 ", "PROXY TCP6 "):
            look_at(probes, f"{beginning}{text}\r\n".encode())

    def test_every_octet_changed(self, probes: ModuleType) -> None:
        chance = random.Random(20260101)
        for header in samples():
            for at in range(len(header)):
                for value in {0, 9, 10, 13, 32, 0x7F, 0x80, 0xFF, chance.randrange(256)}:
                    look_at(probes, header[:at] + bytes([value]) + header[at + 1 :])

    @given(
        which=st.integers(0, 11),
        edits=st.lists(
            st.tuples(st.integers(0, 300), st.integers(0, 4), st.binary(max_size=6)), min_size=1, max_size=6
        ),
    )
    def test_cut_and_pasted(
        self, probes: ModuleType, which: int, edits: list[tuple[int, int, bytes]]
    ) -> None:
        header = samples()[which]
        for at, removed, put_in in edits:
            at %= len(header) + 1
            header = header[:at] + put_in + header[at + removed :]
        look_at(probes, header)


def look_at(probes: ModuleType, data: bytes) -> None:
    """A header that is taken is in the bytes, and cut anywhere it is not one yet."""
    found: Any = read(probes, data)
    if isinstance(found, str):
        assert found in ("bad", "more")
        return
    length, source, target = found
    assert 15 <= length <= min(len(data), MOST)
    assert read(probes, data[: length - 1]) == "more"
    assert (source is None) == (target is None)
    for end in (source, target):
        if end is not None and data.startswith(b"PROXY"):
            host, _, port = end.rpartition(":")
            words = data[:length].decode("ascii").split()
            assert ipaddress.ip_address(host.strip("[]")) in [unmapped(word) for word in words[2:4]]
            assert port in words[4:6]


def unmapped(word: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(word)
    return getattr(address, "ipv4_mapped", None) or address


# ---- who has to send one -------------------------------------------------------------------------


@given(
    octets=st.sampled_from([4, 16]),
    network=st.binary(min_size=16, max_size=16),
    bits=st.integers(0, 128),
    peer=st.binary(min_size=16, max_size=16),
    shared=st.integers(0, 128),
)
def test_a_network_holds_what_begins_like_it(
    probes: ModuleType, octets: int, network: bytes, bits: int, peer: bytes, shared: int
) -> None:
    size = 8 * octets
    bits, shared = min(bits, size), min(shared, size)
    where = int.from_bytes(network[:octets])
    mask = ((1 << shared) - 1) << (size - shared)
    who = (where & mask) | (int.from_bytes(peer[:octets]) & ~mask)  # as close as `shared` bits
    expected = (where ^ who) >> (size - bits) == 0
    packed = who.to_bytes(octets)
    if octets == 16 and packed.startswith(MAPPED):
        expected = False
    assert probes.holds([(where.to_bytes(octets), bits)], packed) == expected
    if octets == 4:
        assert probes.holds([(where.to_bytes(octets), bits)], MAPPED + packed) == expected


MAPPED = bytes(10) + b"\xff\xff"


def test_a_list_of_networks(probes: ModuleType) -> None:
    networks = [
        (ipaddress.ip_network(text).network_address.packed, ipaddress.ip_network(text).prefixlen)
        for text in ("10.0.0.0/8", "192.0.2.7", "2001:db8::/33", "::/0")
    ]
    for address, held in [
        ("10.255.255.255", True),
        ("11.0.0.0", False),
        ("192.0.2.7", True),
        ("192.0.2.6", False),
        ("::ffff:10.1.1.1", True),
        ("::ffff:11.1.1.1", False),  # IPv4, whatever the socket is
        ("2001:db8:8000::", True),
    ]:
        assert probes.holds(networks, ipaddress.ip_address(address).packed) == held, address
    assert not probes.holds(networks[:3], ipaddress.ip_address("2001:db8:8000::").packed)
    assert not probes.holds([], bytes(4))
