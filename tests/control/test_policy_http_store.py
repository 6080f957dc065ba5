"""HttpStore: what is remembered, for how long, and what holds while the store does not answer.

The clock is moved by hand and the answers are scripted; test_policy_endpoint.py has the sockets.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kit.waiting import wait_until

from lbcore import PeerCertificate
from lbctl.config import Config, build
from lbctl.endpoint import EndpointFailed, Response
from lbctl.policy import HttpStore, StoreUnavailable
from lbctl.policy.http_store import MOMENT
from lbctl.policy.outage import FAILURES, PAUSE, SAY_AGAIN

APP = {"listen": "127.0.0.1:0", "upstreams": [{"address": "127.0.0.1:1"}]}
ALICE = {"client": "alice", "apps": ["web"], "limits": {"web": "slow"}}
UNKNOWN = Response(404, b"")


def config(**settings: Any) -> Config:
    return build(
        {
            "version": 1,
            "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
            "limits": {"slow": {"rate": 1}},
            "apps": {"web": APP, "db": APP},
            "client_store": {"url": "https://store.example/{serial}", **settings},
        }
    )


def found(record: Any = ALICE) -> Response:
    return Response(200, json.dumps(record).encode())


class Bench:
    """A store with a script instead of a server, a clock to move, and what the operator was told."""

    def __init__(self, remembered_max: int = 100, **settings: Any) -> None:
        whole = config(**settings)
        assert whole.client_store is not None
        self.now = 1000.0
        self.asked: list[str] = []
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.answer: Callable[[str], Response] = lambda digits: found()
        self.store = HttpStore(
            whole.client_store,
            whole,
            lambda event, **fields: self.said.append((event, fields)),
            ask=self._ask,
            clock=lambda: self.now,
            remembered_max=remembered_max,
        )

    def _ask(self, digits: str) -> Response:
        self.asked.append(digits)
        return self.answer(digits)

    def find(self, serial: int = 1) -> str | None:
        """The client's name, None when it is unknown, "?" when the store cannot tell."""
        try:
            answer = self.store.find(PeerCertificate(b"", serial))
        except StoreUnavailable:
            return "?"
        return answer.record.name if answer.record is not None else None

    def ttl(self, serial: int = 1) -> float | None:
        return self.store.find(PeerCertificate(b"", serial)).ttl

    def events(self) -> list[str]:
        return [event.removeprefix("client_store.") for event, _ in self.said]

    def break_down(self) -> None:
        """Until it counts as down; serials from 900 on are used up."""

        def refused(digits: str) -> Response:
            raise EndpointFailed("Connection refused")

        self.answer = refused
        for serial in range(900, 900 + FAILURES):
            assert self.find(serial) == "?"
        assert self.events()[-1] == "down"


# ---- remembering ---------------------------------------------------------------------------------


def test_the_record_is_what_the_store_says() -> None:
    bench = Bench()
    record = bench.store.find(PeerCertificate(b"", 0xABC)).record
    assert record is not None
    assert (record.name, record.apps, record.limits) == ("alice", {"web"}, {"web": "slow"})
    assert (record.disabled, record.source) == (False, "store")
    assert bench.asked == ["0ABC"], "two digits for each byte, in upper case"


def test_an_answer_is_remembered_for_its_ttl_and_says_how_long_it_still_holds() -> None:
    bench = Bench(ttl="60s")
    assert bench.ttl() == 60
    bench.now += 59
    assert bench.ttl() == pytest.approx(1)
    assert bench.asked == ["01"]
    bench.now += 1
    assert bench.ttl() == 60
    assert bench.asked == ["01"] * 2


def test_that_a_serial_is_unknown_is_remembered_for_less() -> None:
    bench = Bench(negative_ttl="5s")
    bench.answer = lambda digits: UNKNOWN
    assert bench.find() is None
    bench.now += 4.9
    assert bench.ttl() == pytest.approx(0.1)
    assert bench.asked == ["01"]
    bench.answer = lambda digits: found()
    bench.now += 0.1
    assert bench.find() == "alice"


def test_a_change_there_counts_after_the_ttl() -> None:
    bench = Bench()
    assert bench.find() == "alice"
    bench.answer = lambda digits: UNKNOWN
    assert bench.find() == "alice"
    bench.now += 60
    assert bench.find() is None


def test_the_cache_is_bounded_and_forgets_who_did_not_come_for_longest() -> None:
    bench = Bench(remembered_max=3)
    for serial in (1, 2, 3, 1, 4):
        bench.find(serial)
    assert bench.asked == ["01", "02", "03", "04"]
    assert len(bench.store._known) == 3
    bench.find(1)
    assert len(bench.asked) == 4, "it came lately"
    bench.find(2)
    assert len(bench.asked) == 5, "it was forgotten"


def test_several_questions_at_once_are_one_request() -> None:
    bench = Bench()
    gate = threading.Event()

    def slow(digits: str) -> Response:
        gate.wait(10)
        return found()

    bench.answer = slow
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(bench.find) for _ in range(8)]
        other = pool.submit(bench.find, 1)
        wait_until(lambda: bench.asked, "the first question")
        gate.set()
        assert {job.result(10) for job in [*jobs, other]} == {"alice"}
    assert bench.asked == ["01"]


def test_different_serials_do_not_wait_for_each_other() -> None:
    bench = Bench()
    gate = threading.Event()

    def one_hangs(digits: str) -> Response:
        if digits == "01":
            gate.wait(10)
        return found()

    bench.answer = one_hangs
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(bench.find, 1)
        try:
            wait_until(lambda: bench.asked, "the question that hangs")
            assert bench.find(2) == "alice"
            assert not job.done()
        finally:
            gate.set()
        assert job.result(10) == "alice"


def test_whoever_waits_for_anothers_question_waits_no_longer_than_for_its_own() -> None:
    bench = Bench(timeout="50ms")
    gate = threading.Event()
    bench.answer = lambda digits: found() if gate.wait(10) else UNKNOWN
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(bench.find)
        try:
            wait_until(lambda: bench.asked, "the question that hangs")
            assert bench.find() == "?"
        finally:
            gate.set()
        assert job.result(10) == "alice"


# ---- failing -------------------------------------------------------------------------------------


def test_deny_refuses_while_the_store_fails_and_is_over_when_it_answers() -> None:
    bench = Bench()
    bench.break_down()
    bench.answer = lambda digits: found()
    assert bench.find() == "?", "not asked yet"
    bench.now += PAUSE
    assert bench.find() == "alice"
    assert bench.find(2) == "alice"
    assert bench.events() == ["failed", "down", "up"]


def test_an_answer_still_holds_while_the_store_is_down() -> None:
    bench = Bench()
    assert bench.find() == "alice"
    bench.break_down()
    bench.now += 59
    assert bench.find() == "alice"
    bench.now += 1
    assert bench.find() == "?", "deny: what is over is over"


def test_there_is_no_storm_of_questions_while_it_is_down() -> None:
    bench = Bench()
    bench.break_down()
    before = len(bench.asked)
    for serial in range(1, 101):
        bench.now += PAUSE / 10
        assert bench.find(serial) == "?"
    assert len(bench.asked) - before == 10, "one for each pause"
    assert bench.events() == ["failed", "down"], "and not a word for each question"


def test_while_it_is_down_one_question_at_a_time_is_tried() -> None:
    bench = Bench()
    bench.break_down()
    gate = threading.Event()

    def hangs(digits: str) -> Response:
        gate.wait(10)
        raise EndpointFailed("no answer within 1 s")

    bench.answer = hangs
    bench.now += 10 * PAUSE
    before = len(bench.asked)
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(bench.find, 1)
        try:
            wait_until(lambda: len(bench.asked) > before, "the one that is tried")
            assert [bench.find(serial) for serial in range(2, 50)] == ["?"] * 48
        finally:
            gate.set()
        assert job.result(10) == "?"
    assert len(bench.asked) == before + 1


def test_one_failure_keeps_nobody_else_out() -> None:
    bench = Bench()

    def one_fails(digits: str) -> Response:
        if digits == "01":
            raise EndpointFailed("no answer within 1 s")
        return found()

    bench.answer = one_fails
    for round_ in range(10):
        assert bench.find(1) == "?"
        assert bench.find(1) == "?", "not asked again for a moment"
        assert bench.find(2 + round_) == "alice"
        bench.now += MOMENT
    assert bench.asked.count("01") == 10
    assert bench.events() == ["failed"]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_store_that_says_it_cannot_is_down(status: int) -> None:
    bench = Bench()
    bench.answer = lambda digits: Response(status, b"")
    assert [bench.find(serial) for serial in range(1, FAILURES + 9)] == ["?"] * (FAILURES + 8)
    assert len(bench.asked) == FAILURES
    assert bench.said[-1] == (
        "client_store.down",
        {"url": "https://store.example/{serial}", "message": f"HTTP status {status}"},
    )


@pytest.mark.parametrize(
    ("response", "problem"),
    [
        (Response(200, b"garbage"), "wrong answer: not JSON in UTF-8"),
        (found({**ALICE, "admin": True}), "wrong answer: unknown key 'admin'"),
        (found({**ALICE, "limits": {"web": "fast"}}), "wrong answer: limits: unknown class of limits 'fast'"),
        (Response(302, b""), "HTTP status 302, and redirects are not followed"),
        (Response(401, b""), "HTTP status 401"),
        (Response(500, b""), "HTTP status 500"),
        (Response(204, b""), "HTTP status 204"),
    ],
)
def test_a_wrong_answer_is_no_client_and_not_an_unknown_one(response: Response, problem: str) -> None:
    bench = Bench()
    bench.answer = lambda digits: response if digits == "01" else found()
    for _ in range(2 * FAILURES):
        assert bench.find() == "?"
        bench.now += MOMENT
    assert bench.find(2) == "alice", "it is about one serial"
    fields = {"url": "https://store.example/{serial}", "serial": "01", "message": problem}
    assert bench.said == [("client_store.failed", fields)], "once, not for each question"
    bench.now += SAY_AGAIN
    bench.find()
    assert bench.events() == ["failed"] * 2


def test_an_error_in_here_is_no_answer_and_leaves_nothing_behind() -> None:
    bench = Bench()
    bench.answer = lambda digits: 1 / 0  # type: ignore[return-value] # that is what is tested
    with pytest.raises(ZeroDivisionError):
        bench.store.find(PeerCertificate(b"", 1))
    bench.answer = lambda digits: found()
    bench.now += MOMENT
    assert bench.find() == "alice"


# ---- stale ---------------------------------------------------------------------------------------


def test_stale_takes_the_last_answer_up_to_its_age() -> None:
    bench = Bench(on_failure="stale", max_stale="1h", ttl="60s")
    assert bench.find() == "alice"
    bench.break_down()
    bench.now += 60
    assert bench.find() == "alice"
    assert bench.ttl() == MOMENT, "so that the workers ask again soon"
    assert bench.find(2) == "?", "it was never known"
    bench.now += 3600 - 60 - 0.5
    assert bench.ttl() == pytest.approx(0.5)
    bench.now += 0.5
    assert bench.find() == "?"


def test_stale_refuses_whom_the_store_refused() -> None:
    bench = Bench(on_failure="stale")
    bench.answer = lambda digits: UNKNOWN if digits == "02" else found({**ALICE, "disabled": True})
    bench.find(1)
    bench.find(2)
    bench.break_down()
    bench.now += 600
    record = bench.store.find(PeerCertificate(b"", 1)).record
    assert record is not None
    assert record.disabled
    assert bench.find(2) is None


def test_stale_is_over_when_the_store_answers() -> None:
    bench = Bench(on_failure="stale")
    assert bench.find() == "alice"
    bench.break_down()
    bench.now += 60
    assert bench.find() == "alice"
    bench.now += PAUSE
    bench.answer = lambda digits: UNKNOWN
    assert bench.find() is None
    assert bench.events()[-1] == "up"


def test_a_wrong_answer_leaves_the_last_good_one_to_be_stale() -> None:
    bench = Bench(on_failure="stale")
    assert bench.find() == "alice"
    bench.now += 60
    bench.answer = lambda digits: Response(200, b"garbage")
    assert bench.find() == "alice"
    assert bench.ttl() == MOMENT


def test_many_threads_and_a_store_that_comes_and_goes() -> None:
    """Nothing is left asking, whatever happens at once."""
    bench = Bench(on_failure="stale")
    turn = iter(range(10**6))

    def comes_and_goes(digits: str) -> Response:
        bench.now += 1
        match next(turn) % 4:
            case 0:
                raise EndpointFailed("no answer within 1 s")
            case 1:
                return UNKNOWN
            case 2:
                return Response(200, b"garbage")
        return found()

    bench.answer = comes_and_goes
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(bench.find, [number % 7 + 1 for number in range(2000)])) <= {"alice", None, "?"}
    assert bench.store._asking == {}
    bench.now += 10 * PAUSE
    bench.answer = lambda digits: found()
    bench.now += 100
    assert bench.find(77) == "alice"
