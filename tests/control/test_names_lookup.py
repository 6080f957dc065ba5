"""What comes of one look-up, with a real name server."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import pytest
from kit.dns_server import (
    Answer,
    DnsServer,
    another,
    empty,
    failing,
    garbage,
    silent,
    truncated_for_ever,
    unknown,
)
from kit.names import OneName

from lbctl.config.values import parse_address
from lbctl.names import Found, NameOf
from lbctl.names.places import FOUND_MAX
from lbctl.names.questions import Questions
from lbctl.names.values import LookupFailed

WEB = NameOf("dns", "web.internal", 80)
SRV = NameOf("srv", "_web._tcp.internal", None)


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


def services(server: DnsServer, *records: str, ttl: int = 300) -> None:
    server.put(SRV.name, "SRV", *records, ttl=ttl)


# ---- hosts ---------------------------------------------------------------------------------------


def test_a_host_is_all_its_addresses_of_both_families(server: DnsServer) -> None:
    web = OneName(server, WEB)
    server.put(WEB.name, "A", "10.0.0.2", "10.0.0.1", ttl=60)
    outcome = web.look_up()
    assert outcome.found == (Found("10.0.0.1:80", None), Found("10.0.0.2:80", None))
    assert (outcome.ttl, outcome.problems, outcome.failed) == (60, (), False)
    server.put(WEB.name, "AAAA", "2001:db8::1", ttl=30)
    outcome = web.look_up()
    assert [one.address for one in outcome.found] == ["10.0.0.1:80", "10.0.0.2:80", "[2001:db8::1]:80"]
    assert outcome.ttl == 30
    server.put(WEB.name, "A")
    outcome = web.look_up()
    assert [one.address for one in outcome.found] == ["[2001:db8::1]:80"], "what is gone is gone"
    assert (outcome.problems, outcome.failed) == ((), False)


def test_the_ttl_is_the_smallest_on_the_way_through_aliases(server: DnsServer) -> None:
    server.put(WEB.name, "CNAME", "front.example.", ttl=500)
    server.put("front.example", "CNAME", "edge.example.", ttl=7)
    server.put("edge.example", "A", "10.0.0.1", ttl=90)
    outcome = OneName(server, WEB).look_up()
    assert [one.address for one in outcome.found] == ["10.0.0.1:80"]
    assert outcome.ttl == 7


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (failing, "127.0.0.1@{port}: SERVFAIL"),
        (silent, "no answer in time from 127.0.0.1@{port}"),
        (garbage, "no answer in time from 127.0.0.1@{port}"),
        (another, "no answer in time from 127.0.0.1@{port}"),
        (truncated_for_ever, "an answer that makes no sense"),
        (empty, "it has no addresses"),
        (unknown, "there is no such name"),
    ],
)
def test_an_answer_that_is_none_finds_nothing_or_what_was_known(
    server: DnsServer, answer: Answer, words: str
) -> None:
    server.behave(WEB.name, answer)
    web = OneName(server, WEB, timeout=1.0)
    began = time.monotonic()
    outcome = web.look_up()
    assert time.monotonic() - began < 3
    assert outcome.found == ()
    assert outcome.problems == (words.format(port=server.port),)
    assert (outcome.ttl, outcome.failed) == (math.inf, True)


@pytest.mark.parametrize(("bad", "good"), [("A", "AAAA"), ("AAAA", "A")])
def test_a_family_that_fails_keeps_its_addresses_beside_the_new_ones_of_the_other(
    server: DnsServer, bad: str, good: str
) -> None:
    values = {"A": ("10.0.0.1", "10.0.0.2"), "AAAA": ("2001:db8::1", "2001:db8::2")}
    web = OneName(server, WEB)
    server.behave(WEB.name, failing, bad)
    server.put(WEB.name, good, values[good][0], ttl=60)
    outcome = web.look_up()
    assert len(outcome.found) == 1, "nothing is known of the other yet"
    assert outcome.problems == (f"{bad}: 127.0.0.1@{server.port}: SERVFAIL",)
    assert (outcome.ttl, outcome.failed) == (60, True)
    server.behave(WEB.name, None, bad)
    server.put(WEB.name, bad, values[bad][0])
    assert len(web.look_up().found) == 2
    server.behave(WEB.name, failing, bad)
    server.put(WEB.name, good, values[good][1])
    text = " ".join(web.addresses())
    assert values[bad][0] in text
    assert values[good][1] in text
    assert values[good][0] not in text
    server.put(WEB.name, good)
    assert [values[bad][0] in address for address in web.addresses()] == [True]


def test_what_is_known_survives_failing_whole(server: DnsServer) -> None:
    web = OneName(server, WEB)
    server.put(WEB.name, "A", "10.0.0.1")
    assert web.addresses() == ["10.0.0.1:80"]
    server.behave(WEB.name, unknown)
    assert web.addresses() == [], "whoever asks keeps what it had"
    server.behave(WEB.name, None)
    server.behave(WEB.name, failing, "A")
    server.put(WEB.name, "AAAA", "2001:db8::1")
    assert web.addresses() == ["10.0.0.1:80", "[2001:db8::1]:80"]


def test_addresses_that_are_no_places_are_left_out(server: DnsServer) -> None:
    server.put(WEB.name, "A", "0.0.0.0", "10.0.0.1", "224.0.0.9")
    web = OneName(server, WEB)
    outcome = web.look_up()
    assert [one.address for one in outcome.found] == ["10.0.0.1:80"]
    assert outcome.problems == ("nobody can be connected to at 0.0.0.0, 224.0.0.9",)
    assert not outcome.failed
    server.put(WEB.name, "A", "0.0.0.0")
    outcome = web.look_up()
    assert (outcome.found, outcome.failed) == ((), True)


def test_a_library_that_never_comes_back_is_left_in_time() -> None:
    """dnspython measures on the wall clock, so its own deadline may move."""

    class Stuck:
        nameservers = ("10.0.0.2",)

        async def resolve(self, *question: object, **options: object) -> None:
            await asyncio.Event().wait()

    async def ask() -> None:
        questions = Questions(Stuck())  # type: ignore[arg-type] # as much of one as is used
        await questions.addresses("web", "A", asyncio.get_running_loop().time() + 0.05)

    with pytest.raises(LookupFailed, match=r"no answer in time from 10\.0\.0\.2"):
        asyncio.run(asyncio.wait_for(ask(), 5))


def test_a_long_answer_comes_by_tcp_and_is_bounded(server: DnsServer) -> None:
    first = ipaddress.IPv4Address("10.0.0.0")
    server.put(WEB.name, "A", *(str(first + number) for number in range(200)))
    web = OneName(server, WEB)
    assert web.addresses() == [f"{first + number}:80" for number in range(200)]
    assert server.asked(WEB.name, "A", tcp=False) == 1
    assert server.asked(WEB.name, "A", tcp=True) == 1
    server.put(WEB.name, "A", *(str(first + number) for number in range(1000)))
    outcome = web.look_up()
    assert len(outcome.found) == FOUND_MAX
    assert outcome.found[-1].address == f"{first + FOUND_MAX - 1}:80"
    assert outcome.problems == (f"more than {FOUND_MAX} addresses; only the first in their order are used",)


def test_garbage_by_tcp_is_a_failure_and_no_error(server: DnsServer) -> None:
    server.behave(WEB.name, lambda query, tcp: (garbage if tcp else truncated_for_ever)(query, tcp))
    outcome = OneName(server, WEB, timeout=1.0).look_up()
    assert outcome.problems == (f"127.0.0.1@{server.port}: an answer that makes no sense",)


def test_an_alias_of_itself_is_no_answer(server: DnsServer) -> None:
    server.put(WEB.name, "CNAME", WEB.name + ".")
    outcome = OneName(server, WEB).look_up()
    assert outcome.problems == (f"127.0.0.1@{server.port}: an answer that makes no sense",)


def test_damaged_answers_are_an_answer_or_a_problem_and_never_an_error(server: DnsServer) -> None:
    """By TCP, where every damage arrives; a damaged datagram is as good as none."""
    chance = random.Random(17)

    def damaged(query: dns.message.Message, tcp: bool) -> bytes:
        if not tcp:
            return truncated_for_ever(query, tcp)
        wire = bytearray(server.from_records(query, tcp))
        for _ in range(chance.randint(1, 4)):
            wire[chance.randrange(2, len(wire))] = chance.randrange(256)
        return bytes(wire[: chance.randint(2, len(wire))] if chance.random() < 0.3 else wire)

    server.put(WEB.name, "CNAME", "edge.internal.")
    server.put("edge.internal", "A", "10.0.0.1", "10.0.0.2")
    server.behave(WEB.name, damaged, "A", "AAAA")
    web = OneName(server, WEB, timeout=0.1)
    for _ in range(100):
        outcome = web.look_up()
        assert outcome.found or outcome.problems
        assert all(parse_address(one.address) == one.address for one in outcome.found)
    assert server.asked(WEB.name, tcp=True) >= 50


# ---- several servers -----------------------------------------------------------------------------


def test_another_server_answers_when_one_fails_or_is_not_there(server: DnsServer) -> None:
    server.put(WEB.name, "A", "10.0.0.1")
    with DnsServer() as bad:
        bad.behave(WEB.name, failing)
        assert OneName(server, WEB, before=[bad.address]).addresses() == ["10.0.0.1:80"]
        assert bad.asked(WEB.name, "A") == 1
        gone = bad.address
    assert OneName(server, WEB, before=[gone]).addresses() == ["10.0.0.1:80"]


# ---- the search list -----------------------------------------------------------------------------


def test_the_search_list_completes_names_without_a_dot(server: DnsServer, tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\nsearch a.example b.example\n")
    server.put("web.b.example", "A", "10.0.0.1")
    server.put("web", "A", "10.0.0.2")
    assert OneName(server, NameOf("dns", "web", 80), path).addresses() == ["10.0.0.1:80"]
    assert server.asked("web.a.example", "A") == 1
    assert server.asked("web") == 0
    assert OneName(server, NameOf("dns", "web.", 80), path).addresses() == ["10.0.0.2:80"], "it is absolute"
    assert server.asked("web.a.example", "A") == 1
    server.put("api.internal", "A", "10.0.0.3")
    assert OneName(server, NameOf("dns", "api.internal", 80), path).addresses() == ["10.0.0.3:80"]
    assert server.asked("api.internal.a.example") == 0, "a name with a dot is tried as it is first"


# ---- services ------------------------------------------------------------------------------------


def test_a_service_has_ports_and_weights(server: DnsServer) -> None:
    services(server, "10 5 8080 one.internal.", "10 0 8081 two.internal.", ttl=60)
    server.put("one.internal", "A", "10.0.0.1", ttl=40)
    server.put("one.internal", "AAAA", "2001:db8::1", ttl=50)
    server.put("two.internal", "A", "10.0.0.2", ttl=70)
    outcome = OneName(server, SRV).look_up()
    assert outcome.found == (
        Found("10.0.0.1:8080", 5),
        Found("10.0.0.2:8081", 1),
        Found("[2001:db8::1]:8080", 5),
    )
    assert (outcome.ttl, outcome.problems, outcome.failed) == (40, (), False)


def test_the_lowest_priority_that_has_addresses_is_used(server: DnsServer) -> None:
    services(server, "20 1 80 second.internal.", "10 1 80 first.internal.", "30 1 80 third.internal.")
    server.put("first.internal", "A", "10.0.0.1")
    server.put("second.internal", "A", "10.0.0.2")
    web = OneName(server, SRV)
    assert web.addresses() == ["10.0.0.1:80"]
    assert server.asked("second.internal") == 0
    server.behave("first.internal", unknown)
    outcome = web.look_up()
    assert [one.address for one in outcome.found] == ["10.0.0.2:80"]
    assert outcome.problems == ("first.internal.: there is no such name",)
    assert outcome.failed
    assert server.asked("third.internal") == 0


def test_a_target_that_fails_keeps_what_is_known_of_it(server: DnsServer) -> None:
    services(server, "10 1 80 first.internal.", "10 1 80 other.internal.", "20 1 80 second.internal.")
    server.put("first.internal", "A", "10.0.0.1")
    server.put("other.internal", "A", "10.0.0.9")
    server.put("second.internal", "A", "10.0.0.2")
    web = OneName(server, SRV)
    assert web.addresses() == ["10.0.0.1:80", "10.0.0.9:80"]
    server.behave("first.internal", failing)
    server.put("other.internal", "A", "10.0.0.8")
    outcome = web.look_up()
    assert [one.address for one in outcome.found] == ["10.0.0.1:80", "10.0.0.8:80"]
    assert outcome.problems == (f"first.internal.: 127.0.0.1@{server.port}: SERVFAIL",)
    assert outcome.failed
    services(server, "10 1 80 other.internal.")
    assert web.addresses() == ["10.0.0.8:80"], "what the service no longer names is forgotten"
    services(server, "10 1 80 first.internal.", "20 1 80 second.internal.")
    assert web.addresses() == ["10.0.0.2:80"]


def test_a_silent_target_leaves_time_for_the_next_priority(server: DnsServer) -> None:
    services(server, "10 1 80 first.internal.", "20 1 80 second.internal.")
    server.behave("first.internal", silent)
    server.put("second.internal", "A", "10.0.0.2")
    began = time.monotonic()
    assert OneName(server, SRV, timeout=2.0).addresses() == ["10.0.0.2:80"]
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("0 0 0 .", "it says that there is no such service"),
        ("0 0 0 one.internal.", "an SRV record with port 0 is left out"),
    ],
)
def test_a_service_may_say_that_it_is_not_there(server: DnsServer, record: str, words: str) -> None:
    services(server, record)
    outcome = OneName(server, SRV).look_up()
    assert (outcome.found, outcome.problems) == ((), (words,))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (failing, "127.0.0.1@{port}: SERVFAIL"),
        (unknown, "there is no such name"),
        (empty, "it has no SRV records"),
    ],
)
def test_a_service_without_records_is_a_problem(server: DnsServer, answer: Answer, words: str) -> None:
    server.behave(SRV.name, answer)
    outcome = OneName(server, SRV).look_up()
    assert (outcome.found, outcome.failed) == ((), True)
    assert outcome.problems == (words.format(port=server.port),)


def test_two_records_for_one_place_are_one_with_the_larger_weight(server: DnsServer) -> None:
    services(server, "10 9 80 one.internal.", "10 3 80 two.internal.", "10 4 81 two.internal.")
    server.put("one.internal", "A", "10.0.0.1")
    server.put("two.internal", "A", "10.0.0.1")
    outcome = OneName(server, SRV).look_up()
    assert outcome.found == (Found("10.0.0.1:80", 9), Found("10.0.0.1:81", 4))


def test_targets_are_only_text(server: DnsServer) -> None:
    """Whoever writes the zone writes no lines of a log."""
    services(server, r"10 1 80 a\010b\027[31m\"\226\128\174.example.")
    (problem,) = OneName(server, SRV).look_up().problems
    assert problem.endswith(": there is no such name")
    assert problem.isprintable()
    assert problem.isascii()
    services(server, "10 1 80 " + ".".join(["a" * 60] * 4) + ".")
    (problem,) = OneName(server, SRV).look_up().problems
    assert len(problem) < 100


def test_many_targets_are_asked_about_in_turns(server: DnsServer) -> None:
    count = 300
    services(server, *(f"10 1 {8000 + number} t{number:03}.internal." for number in range(count)))
    for number in range(count):
        server.put(f"t{number:03}.internal", "A", f"10.0.{number // 200}.{number % 200 + 1}")
    outcome = OneName(server, SRV, timeout=30).look_up()  # 513 questions, on a busy machine
    assert len(outcome.found) == 256
    assert outcome.problems == ("more than 256 SRV records; only the first in their order are used",)
    assert server.asked("t255.internal", "A") == 1
    assert server.asked("t256.internal") == 0
