"""What may be written as a name, which addresses are places, what files say, and when to ask again."""

from __future__ import annotations

import ipaddress
import math
import os
from pathlib import Path
from typing import get_args

import dns.name
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.config.host_names import NameKind
from lbctl.config.values import parse_address
from lbctl.names import Found, NameOf, missing, parse_name
from lbctl.names.hosts_file import HostsFile
from lbctl.names.places import FOUND_MAX, choose, places
from lbctl.names.schedule import RETRY_MAX, TTL_MAX, TTL_MIN, Schedule
from lbctl.names.servers import Servers
from lbctl.names.values import LookupFailed

# ---- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("metrics.internal", "metrics.internal"),
        ("Metrics.INTERNAL.", "metrics.internal."),
        ("web", "web"),
        ("my_service", "my_service"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("10.in-addr", "10.in-addr"),
        (".".join(["a" * 63] * 3 + ["b" * 61]), ".".join(["a" * 63] * 3 + ["b" * 61])),
    ],
)
def test_a_host_has_one_spelling(text: str, name: str) -> None:
    assert parse_name(text) == name
    assert parse_name(name) == name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a host name"),
        (".", "expected a host name"),
        ("a..b", "'a..b' is not a host name"),
        (".a", "is not a host name"),
        ("-a.b", "'-' is neither first nor last"),
        ("a-.b", "'-' is neither first nor last"),
        ("a b", "is not a host name"),
        ("a/b", "is not a host name"),
        ("a\n", "'a\\n' is not a host name"),
        ("web:80", "is not a host name"),
        ("*.internal", "is not a host name"),
        ("bücher.example", "has xn-- in it"),
        ("10.0.0.1", "is an address, not a name"),
        ("10.0.0.1.", "is an address, not a name"),
        ("10.1", "ends in a number"),
        ("web.0x7f", "ends in a number"),
        ("a" * 64 + ".b", "at most 63 characters between two dots"),
        (".".join(["a" * 63] * 3 + ["b" * 62]), "at most 253 characters"),
        ("_http._tcp.web", "is a service, not a host; write it as 'srv:'"),
    ],
)
def test_what_is_no_host_is_refused_with_a_reason(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        parse_name(text)
    assert words in str(refused.value)


def test_a_service_names_service_protocol_and_host() -> None:
    assert parse_name("_Metrics._TCP.internal", "srv") == "_metrics._tcp.internal"
    for text in (
        "metrics.internal",
        "_metrics.internal",
        "_metrics._tcp",
        "_metrics._tcp.",
        "_a.tcp.internal",
    ):
        with pytest.raises(ValueError, match=r"_service\._proto\.name|not a host name"):
            parse_name(text, "srv")


@given(st.text(st.sampled_from("aZ09-_.é \n*/:"), max_size=70) | st.text(max_size=300))
def test_whatever_passes_is_a_name_of_dns_with_one_spelling(text: str) -> None:
    for kind in get_args(NameKind):
        try:
            name = parse_name(text, kind)
        except ValueError as error:
            words = str(error)
        else:
            words = dns.name.from_text(name).to_text(omit_final_dot=not name.endswith("."))
            assert words == name == parse_name(name, kind)
        assert words.isprintable()


def test_a_port_belongs_to_hosts_alone() -> None:
    with pytest.raises(ValueError, match="port from 1 to 65535"):
        NameOf("dns", "web", None)
    with pytest.raises(ValueError, match="port from 1 to 65535"):
        NameOf("dns", "web", 65536)
    with pytest.raises(ValueError, match="comes from its SRV records"):
        NameOf("srv", "_a._tcp.web", 80)


def test_dnspython_is_there() -> None:
    assert missing() is None


# ---- addresses -----------------------------------------------------------------------------------


def test_what_nobody_can_connect_to_is_left_out_and_named() -> None:
    nowhere = [
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "ff02::1",
        "fe80::1",
        "::ffff:0.0.0.0",
    ]
    good = ["10.0.0.1", "127.0.0.1", "2001:db8::1", "::1"]
    kept, problems = places(map(ipaddress.ip_address, [*nowhere, *good]))
    assert sorted(map(str, kept)) == sorted(good)
    assert problems == ("nobody can be connected to at 0.0.0.0, 0.1.2.3, 224.0.0.1 and others",)
    for text in nowhere:
        assert places([ipaddress.ip_address(text)])[0] == ()


def test_an_ipv4_address_in_an_ipv6_record_is_that_ipv4_address() -> None:
    kept, problems = places(map(ipaddress.ip_address, ["::ffff:10.0.0.1", "10.0.0.1"]))
    assert kept == (ipaddress.ip_address("10.0.0.1"),)
    assert problems == ()


def test_addresses_are_spelled_as_everywhere_and_in_one_order() -> None:
    texts = ["2001:db8::1", "10.0.0.10", "10.0.0.9", "2001:0DB8::0"]
    found, _ = choose({(ipaddress.ip_address(text), 80): None for text in texts})
    addresses = [one.address for one in found]
    assert addresses == ["10.0.0.9:80", "10.0.0.10:80", "[2001:db8::]:80", "[2001:db8::1]:80"]
    assert [parse_address(address) for address in addresses] == addresses


def test_of_too_many_every_node_takes_the_same() -> None:
    ips = [ipaddress.IPv4Address("10.0.0.0") + number for number in range(FOUND_MAX + 50)]
    found, problems = choose({(ip, 80): None for ip in ips})
    again, _ = choose({(ip, 80): None for ip in reversed(ips)})
    assert found == again
    assert found[-1] == Found(f"{ips[FOUND_MAX - 1]}:80", None)
    assert len(found) == FOUND_MAX
    assert problems == (f"more than {FOUND_MAX} addresses; only the first in their order are used",)


# ---- files ---------------------------------------------------------------------------------------


def test_hosts_are_read_as_everybody_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(
        b"# a comment\n10.0.0.1\tWeb.internal web # the web\n::1 web\n\nnonsense here\n10.0.0.9\n\xff\xfe x\n"
    )
    hosts = HostsFile(path)
    assert list(map(str, hosts.find("web"))) == ["10.0.0.1", "::1"]
    assert list(map(str, hosts.find("WEB.internal."))) == ["10.0.0.1"]
    assert hosts.find("here") == hosts.find("#") == hosts.find("") == ()


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(path)
    assert hosts.find("web") == (), "it is not there"
    path.write_text("10.0.0.1 web\n")
    assert list(map(str, hosts.find("web"))) == ["10.0.0.1"]
    other = tmp_path / "other"
    other.write_text("10.0.0.2 web\n")
    other.replace(path)
    assert list(map(str, hosts.find("web"))) == ["10.0.0.2"]
    path.unlink()
    assert hosts.find("web") == ()


def test_a_file_that_cannot_be_read_is_a_failure(tmp_path: Path) -> None:
    with pytest.raises(LookupFailed, match=r"cannot read .*: Is a directory"):
        HostsFile(tmp_path).find("web")


def test_localhost_is_the_loopback_whatever_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    hosts = HostsFile(path)
    for name in ("localhost", "LOCALHOST.", "web.localhost"):
        assert list(map(str, hosts.find(name))) == ["127.0.0.1", "::1"]
    assert hosts.find("notlocalhost") == ()
    path.write_text("127.0.0.1 localhost\n")
    assert list(map(str, hosts.find("localhost"))) == ["127.0.0.1"], "the file comes first"


def servers_of(servers: Servers) -> list[str]:
    resolver = servers.current()
    return sorted(str(server).removeprefix("Do53:") for server in resolver.nameservers)


def test_name_servers_come_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(
        "nameserver 10.0.0.2\nnameserver 2001:db8::2\nsearch a.example b.example\noptions ndots:5\n"
    )
    servers = Servers(path=path)
    resolver = servers.current()
    assert servers_of(servers) == ["10.0.0.2", "2001:db8::2"]
    assert [name.to_text() for name in resolver.search] == ["a.example.", "b.example."]
    assert resolver.ndots == 5
    assert servers.current() is resolver
    path.write_text("search a.example\n")
    assert servers_of(servers) == ["127.0.0.1"], "as resolv.conf(5) says"
    path.unlink()
    assert servers_of(servers) == ["127.0.0.1"]


def test_named_servers_take_the_place_of_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.2\nsearch a.example\n")
    servers = Servers(["10.0.0.3", "10.0.0.4:5353", "2001:db8::3", "[2001:db8::4]:54"], path)
    assert servers_of(servers) == ["10.0.0.3@53", "10.0.0.4@5353", "2001:db8::3@53", "2001:db8::4@54"]
    assert [name.to_text() for name in servers.current().search] == ["a.example."]
    with pytest.raises(ValueError, match="not an IP address"):
        Servers(["ns.internal"])


def test_a_file_without_sense_is_a_failure_until_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 10.0.0.2\nsearch a..b\n")
    servers = Servers(path=path)
    for _ in range(2):
        with pytest.raises(LookupFailed, match="makes no sense"):
            servers.current()
    path.write_text("nameserver 10.0.0.2\nsearch a.b\n")
    assert servers_of(servers) == ["10.0.0.2"]


@pytest.mark.parametrize(("option", "seconds"), [("timeout:0", 1), ("timeout:30", 2), ("timeout:x", 2)])
def test_one_server_has_neither_no_time_nor_all_of_it(tmp_path: Path, option: str, seconds: int) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(f"nameserver 10.0.0.2\noptions {option}\n")
    os.utime(path)
    assert Servers(path=path).current().timeout == seconds


# ---- when ----------------------------------------------------------------------------------------


def test_the_ttl_counts_within_bounds() -> None:
    schedule = Schedule()
    for ttl, pause in ((0, TTL_MIN), (1, 1), (60, 60), (2**31, TTL_MAX), (math.inf, TTL_MAX)):
        assert schedule.pause(ttl, failed=False) == pause


def test_failures_are_tried_again_ever_later_and_never_at_the_same_moment() -> None:
    schedule = Schedule(lambda: 0.0)
    pauses = [schedule.pause(math.inf, failed=True) for _ in range(8)]
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert schedule.pause(60, failed=False) == 60
    assert schedule.pause(math.inf, failed=True) == 1, "it begins anew"
    early = Schedule(lambda: 1.0)
    assert [early.pause(math.inf, failed=True) for _ in range(3)] == [0.75, 1.5, 3]
    chances = {Schedule().pause(math.inf, failed=True) for _ in range(20)}
    assert len(chances) > 1
    assert all(0.75 <= pause <= 1 for pause in chances)


def test_what_failed_in_part_is_asked_again_at_the_ttl_when_that_is_sooner() -> None:
    schedule = Schedule(lambda: 0.0)
    assert [schedule.pause(3, failed=True) for _ in range(6)] == [1, 2, 3, 3, 3, 3]
    assert RETRY_MAX < TTL_MAX
