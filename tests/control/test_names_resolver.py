"""The thread that follows names: what it tells and when, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.dns_server import Answer, DnsServer, empty, failing, silent, unknown
from kit.fixtures import Keep
from kit.leaks import descriptors
from kit.names import Names
from kit.waiting import wait_until

from lbctl.names import NameOf, Resolver
from lbctl.names.hosts import FAMILIES


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer() as running:
        yield running


def names_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "names"]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert names_threads() == []


# ---- answers -------------------------------------------------------------------------------------


def test_an_answer_is_told_once_and_asked_again_at_its_ttl(server: DnsServer, keep: Keep) -> None:
    server.put("web.internal", "A", "10.0.0.1", ttl=1)
    names = keep(Names(server))
    began = time.monotonic()
    names.add("web.internal")
    names.wait_for("web.internal", "10.0.0.1:80")
    wait_until(lambda: server.asked("web.internal", "A") == 3, "asked again, twice")
    assert 1.9 < time.monotonic() - began < 6
    assert len(names.answers["web.internal"]) == 1, "it has not changed"
    server.put("web.internal", "A", "10.0.0.2", "10.0.0.1", ttl=1)
    names.wait_for("web.internal", "10.0.0.1:80", "10.0.0.2:80")
    server.put("web.internal", "A", "10.0.0.2", ttl=300)
    names.wait_for("web.internal", "10.0.0.2:80")
    assert names.problems == {}
    assert names.recovered == []


def test_a_ttl_of_zero_is_a_second(server: DnsServer, keep: Keep) -> None:
    server.put("web.internal", "A", "10.0.0.1", ttl=0)
    names = keep(Names(server))
    began = time.monotonic()
    names.add("web.internal")
    wait_until(lambda: server.asked("web.internal", "A") == 3, "asked again, twice")
    assert time.monotonic() - began > 1.9


@pytest.mark.parametrize("answer", [failing, empty, unknown])
def test_a_failure_changes_nothing_is_told_once_and_is_over_one_day(
    server: DnsServer, keep: Keep, answer: Answer
) -> None:
    server.put("web.internal", "A", "10.0.0.1", ttl=1)
    names = keep(Names(server))
    names.add("web.internal")
    names.wait_for("web.internal", "10.0.0.1:80")
    server.behave("web.internal", answer)
    words = names.wait_for_problem("web.internal")
    assert words.startswith("web.internal: ")
    # Both questions of a look-up: what changes between them is another problem, in words of its own.
    asked = {family: server.asked("web.internal", family) for family in FAMILIES}
    wait_until(lambda: all(server.asked("web.internal", one) > asked[one] for one in FAMILIES), "asked again")
    server.behave("web.internal", None)
    wait_until(lambda: names.recovered == ["web.internal"], "over")
    assert names.problems == {"web.internal": [words]}
    assert len(names.answers["web.internal"]) == 1


def test_a_problem_in_other_words_is_told_too(server: DnsServer, keep: Keep) -> None:
    names = keep(Names(server))
    names.add("web.internal")
    assert names.wait_for_problem("web.internal") == "web.internal: there is no such name"
    server.behave("web.internal", failing)
    assert names.wait_for_problem("web.internal", 2) == f"web.internal: 127.0.0.1@{server.port}: SERVFAIL"
    assert names.answers == {}
    server.behave("web.internal", None)
    server.put("web.internal", "A", "10.0.0.1")
    names.wait_for("web.internal", "10.0.0.1:80")
    wait_until(lambda: names.recovered == ["web.internal"], "over")


def test_a_service_is_followed(server: DnsServer, keep: Keep) -> None:
    server.put("_web._tcp.internal", "SRV", "10 5 8080 one.internal.", ttl=1)
    server.put("one.internal", "A", "10.0.0.1")
    names = keep(Names(server))
    names.resolver.add("web", NameOf("srv", "_web._tcp.internal", None))
    names.wait_for("web", "10.0.0.1:8080")
    server.put("_web._tcp.internal", "SRV", "10 6 8080 one.internal.", ttl=300)
    wait_until(lambda: names.answers["web"][-1][0].weight == 6, "another weight is another answer")


def test_hosts_come_before_dns_and_are_read_again(
    server: DnsServer, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lbctl.names.lookup.HOSTS_TTL", 1.0)
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.1 web.internal\n")
    server.put("web.internal", "A", "10.0.0.2", ttl=1)
    names = keep(Names(server, hosts=hosts))
    names.add("web.internal")
    names.add("localhost")
    names.wait_for("web.internal", "10.0.0.1:80")
    names.wait_for("localhost", "127.0.0.1:80", "[::1]:80")
    assert server.asked("web.internal") == server.asked("localhost") == 0
    hosts.write_text("\n")
    names.wait_for("web.internal", "10.0.0.2:80")
    hosts.write_text("10.0.0.3 web.internal\n")
    names.wait_for("web.internal", "10.0.0.3:80")


# ---- at run time ---------------------------------------------------------------------------------


def test_names_come_and_go(server: DnsServer, keep: Keep) -> None:
    for number in range(3):
        server.put(f"web{number}.internal", "A", f"10.0.0.{number}", ttl=1)
    names = keep(Names(server))
    names.add("web0.internal")
    names.add("web1.internal")
    names.wait_for("web1.internal", "10.0.0.1:80")
    names.resolver.remove("web0.internal")
    names.resolver.remove("never.there")
    names.add("web2.internal")
    names.wait_for("web2.internal", "10.0.0.2:80")
    asked = server.asked("web0.internal")
    others = server.asked("web1.internal", "A")
    wait_until(lambda: server.asked("web1.internal", "A") >= others + 2, "others go on")
    assert server.asked("web0.internal") == asked


def test_the_same_name_again_changes_nothing_and_another_one_starts_anew(
    server: DnsServer, keep: Keep
) -> None:
    server.put("web.internal", "A", "10.0.0.1")
    server.put("api.internal", "A", "10.0.0.1")
    names = keep(Names(server))
    names.add("web.internal", key="up")
    names.wait_for("up", "10.0.0.1:80")
    names.add("web.internal", key="up")
    names.add("api.internal", key="up")
    wait_until(lambda: len(names.answers["up"]) == 2, "the other name")
    assert server.asked("web.internal", "A") == 1
    names.resolver.remove("up")
    names.add("api.internal", key="up")
    wait_until(lambda: len(names.answers["up"]) == 3, "removed and added is new")
    names.add("api.internal", 81, key="up")
    names.wait_for("up", "10.0.0.1:81")


def test_what_was_added_before_the_start_is_looked_up(server: DnsServer, tmp_path: Path) -> None:
    server.put("web.internal", "A", "10.0.0.1")
    told: list[Any] = []
    resolver: Resolver[int] = Resolver(
        lambda key, found: told.append((key, found[0].address)),
        lambda key, words: told.append(words),
        nameservers=[server.address],
        resolv_conf=tmp_path / "none",
        hosts=tmp_path / "none",
    )
    resolver.add(7, NameOf("dns", "web.internal", 80))
    resolver.start()
    wait_until(lambda: told == [(7, "10.0.0.1:80")], "the answer")
    with pytest.raises(RuntimeError, match="once"):
        resolver.start()
    resolver.stop()
    resolver.add(8, NameOf("dns", "web.internal", 80))
    resolver.remove(7)
    resolver.stop()
    assert told == [(7, "10.0.0.1:80")]


def test_who_is_removed_hears_nothing_more(server: DnsServer, keep: Keep) -> None:
    """Not even the rest of the same answer."""
    server.put("web.internal", "A", "10.0.0.1", "0.0.0.0", ttl=1)
    names = keep(Names(server, on_answer=lambda key: names.resolver.remove(key)))
    names.add("web.internal")
    names.wait_for("web.internal", "10.0.0.1:80")
    names.add("other.internal")
    names.wait_for_problem("other.internal")
    assert list(names.problems) == ["other.internal"]


def test_many_threads_add_and_remove(server: DnsServer, keep: Keep) -> None:
    for number in range(40):
        server.put(f"web{number}.internal", "A", f"10.0.0.{number}")
    names = keep(Names(server))

    def churn(first: int) -> None:
        for number in range(first, 40, 4):
            for _ in range(20):
                names.add(f"web{number}.internal")
                names.resolver.remove(f"web{number}.internal")
            names.add(f"web{number}.internal")

    threads = [threading.Thread(target=churn, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(40):
        names.wait_for(f"web{number}.internal", f"10.0.0.{number}:80")
    assert names.problems == {}


# ---- failing -------------------------------------------------------------------------------------


def test_a_silent_server_costs_one_name_its_time_and_others_nothing(server: DnsServer, keep: Keep) -> None:
    server.behave("slow.internal", silent)
    server.put("web.internal", "A", "10.0.0.1")
    names = keep(Names(server, timeout=1.0))
    began = time.monotonic()
    names.add("slow.internal")
    wait_until(lambda: server.asked("slow.internal"), "the question")
    names.add("web.internal")
    names.wait_for("web.internal", "10.0.0.1:80")
    assert names.problems == {}
    assert "no answer in time" in names.wait_for_problem("slow.internal")
    assert 0.9 < time.monotonic() - began < 4


def test_a_wall_clock_that_jumps_moves_no_deadline(
    server: DnsServer, keep: Keep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dnspython measures its own time on that clock."""
    server.behave("web.internal", silent)
    names = keep(Names(server, timeout=1.0))
    real = time.time
    names.add("web.internal")
    wait_until(lambda: server.asked("web.internal"), "the question")
    monkeypatch.setattr("time.time", lambda: real() - 3600)
    began = time.monotonic()
    assert "no answer in time" in names.wait_for_problem("web.internal")
    assert time.monotonic() - began < 4


def test_an_error_of_a_callback_is_logged_and_harms_nobody(
    server: DnsServer, keep: Keep, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(key: str) -> None:
        raise ZeroDivisionError(key)

    server.put("web.internal", "A", "10.0.0.1", ttl=1)
    names = keep(Names(server, on_answer=fails))
    with caplog.at_level(logging.ERROR, "lbctl.names"):
        names.add("web.internal")
        wait_until(lambda: caplog.records, "the error")
    assert caplog.records[0].name == "lbctl.names"
    assert caplog.records[0].exc_info
    server.put("web.internal", "A", "10.0.0.2", ttl=1)
    names.wait_for("web.internal", "10.0.0.2:80")


def test_an_error_in_here_is_a_failure_of_one_name(
    server: DnsServer, keep: Keep, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.put("web.internal", "A", "10.0.0.1")
    with monkeypatch.context() as broken:
        broken.setattr("lbctl.names.hosts.places", lambda records: 1 / 0)
        names = keep(Names(server))
        names.add("web.internal")
        assert names.wait_for_problem("web.internal") == "web.internal: an error of this program"
    assert caplog.records
    names.wait_for("web.internal", "10.0.0.1:80")


def test_a_file_that_cannot_be_read_is_told(server: DnsServer, keep: Keep, tmp_path: Path) -> None:
    names = keep(Names(server, hosts=tmp_path))
    names.add("web.internal")
    words = names.wait_for_problem("web.internal")
    assert words == f"web.internal: cannot read {tmp_path}: Is a directory"


def test_without_dnspython_the_operator_is_told_how_to_get_it() -> None:
    program = """
import sys
from lbctl.errors import LbctlError
sys.modules["dns"] = None
from lbctl.names import NameOf, Resolver, missing, parse_name
print(missing())
try:
    Resolver(print, print).start()
except LbctlError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    sentence = "upstreams by name need dnspython: pip install 'lbcore[dns]'"
    assert done.stdout.splitlines() == [sentence, sentence], done.stderr


# ---- the end -------------------------------------------------------------------------------------


def test_stopping_ends_questions_under_way(server: DnsServer) -> None:
    before = descriptors()
    names = Names(server, timeout=60.0)
    for number in range(40):
        server.behave(f"web{number}.internal", silent)
        names.add(f"web{number}.internal")
    server.behave("tcp.internal", lambda query, tcp: None if tcp else truncated(query))
    names.add("tcp.internal")
    wait_until(
        lambda: sum(server.asked(f"web{number}.internal") for number in range(40)) >= 60, "many questions"
    )
    assert descriptors() > before + 30
    began = time.monotonic()
    names.close()
    assert time.monotonic() - began < 2
    assert names_threads() == []
    wait_until(lambda: descriptors() <= before, "the descriptors of before")
    assert names.problems == {}


def truncated(query: Any) -> bytes:
    from kit.dns_server import truncated_for_ever

    return truncated_for_ever(query, False)


def test_a_cancel_that_is_lost_holds_nobody_up(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    looking: list[str] = []

    class LosesCancel:
        def __init__(self, name: NameOf, *others: object) -> None:
            self._name = name.name

        async def look(self) -> float:
            looking.append(self._name)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            return 3600.0

    monkeypatch.setattr("lbctl.names.resolver.Watch", LosesCancel)
    names = Names(server)
    names.add("one.internal")
    names.add("two.internal")
    wait_until(lambda: len(looking) == 2, "both")
    names.resolver.remove("one.internal")
    wait_until(lambda: len(names.resolver._tasks) == 1, "the one that was removed ends")
    began = time.monotonic()
    names.close()
    assert time.monotonic() - began < 5
    assert names_threads() == []


def test_stopping_from_a_callback_ends_it(server: DnsServer) -> None:
    server.put("web.internal", "A", "10.0.0.1", ttl=1)
    names = Names(server, on_answer=lambda key: names.resolver.stop())
    names.add("web.internal")
    wait_until(lambda: names_threads() == [], "the end")
    assert len(names.answers["web.internal"]) == 1


def test_whoever_never_started_may_stop() -> None:
    resolver: Resolver[str] = Resolver(print, print)
    resolver.stop()
    with pytest.raises(RuntimeError, match="once"):
        resolver.start()
