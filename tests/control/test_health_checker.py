"""Checker: many targets on one thread, which come and go, and none of which costs the others anything."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import random
import resource
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kit.health import EAGER, SHORT, Checked, health_threads, target
from kit.leaks import descriptors
from kit.racing import at_once
from kit.tls_upstream import tls_upstream
from kit.upstreams import Blackhole, Refuser, Session, Upstream, hold
from kit.waiting import PATIENCE, wait_until

from lbctl.health import Checker, CheckSettings, CheckTLS, Result, Target, rounds
from lbctl.health.encrypted import Encrypted
from lbctl.health.failures import CheckFailed
from lbctl.health.plain import Plain

Keep = Callable[[Any], Any]
#: What a thread may be late on a busy machine, in seconds.
SLACK = 1.0


class Meter:
    """A script that answers when it is let, and knows how many wait for that at once.

    Attributes:
        open: set when it answers.
        most: how many waited at once, at most.
    """

    def __init__(self) -> None:
        self.open = threading.Event()
        self.most = 0
        self.now = 0
        self._lock = threading.Lock()

    def __call__(self, session: Session) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.open.wait(PATIENCE)
        with self._lock:
            self.now -= 1  # before the check can know that it has passed
        session.sock.sendall(b"ok")
        session.collect()


# ---- counting ------------------------------------------------------------------------------------


def test_it_falls_and_rises_by_the_count(keep: Keep) -> None:
    refuser = keep(Refuser())
    one = target(refuser.address, rise=2, fall=3)
    checked = keep(Checked(one))
    seen = [(r.passed, r.state, r.changed, r.count) for r in checked.wait(one, 4)]
    assert seen == [
        (False, "up", False, 1),
        (False, "up", False, 2),
        (False, "down", True, 3),
        (False, "down", False, 4),
    ]
    keep(refuser.revive())
    wait_until(lambda: checked.of(one)[-1].count >= 3 and checked.of(one)[-1].passed)
    passed = [(r.state, r.changed, r.count) for r in checked.of(one) if r.passed]
    assert passed[:3] == [("down", False, 1), ("up", True, 2), ("up", False, 3)]
    assert sum(result.changed for result in checked.of(one)) == 2


def test_a_recovery_is_seen_within_so_many_intervals(keep: Keep) -> None:
    refuser = keep(Refuser())
    one = target(refuser.address, interval=0.5, rise=2, fall=1)
    checked = keep(Checked(one))
    wait_until(lambda: any(result.state == "down" for result in checked.of(one)))
    began = time.monotonic()
    keep(refuser.revive())
    recovered = wait_until(lambda: [n for n in checked.noted if n.result.changed and n.result.passed])[0]
    assert recovered.at - began < 0.5 * 2 + SLACK
    assert recovered.result.count == 2


# ---- when ----------------------------------------------------------------------------------------


def test_first_checks_are_spread_over_the_interval(keep: Keep) -> None:
    upstream = keep(Upstream())
    targets = [target(upstream.address, app=str(number), interval=1.0) for number in range(80)]
    began = time.monotonic()
    checked = keep(Checked(*targets, random=random.Random(1).random))
    wait_until(lambda: {noted.target for noted in checked.noted} == set(targets))
    firsts: dict[Target, float] = {}
    for noted in checked.noted:
        firsts.setdefault(noted.target, noted.began - began)
    assert max(firsts.values()) < 1.0 + SLACK
    quarters = [sum(part <= 4 * first < part + 1 for first in firsts.values()) for part in range(4)]
    assert min(quarters) >= 5, quarters


def test_checks_come_every_interval_from_start_to_start(keep: Keep) -> None:
    """An answer that takes most of the interval does not put the next check off."""

    def late(session: Session) -> None:
        session.released.wait(0.15)
        session.sock.sendall(b"ok")
        session.collect()

    upstream = keep(Upstream(late))
    one = target(upstream.address, interval=0.2, jitter=0.5, expect=b"ok")
    checked = keep(Checked(one))
    checked.wait(one, 12)
    begins = [noted.began for noted in checked.noted[:12]]
    gaps = sorted(after - before for before, after in itertools.pairwise(begins))
    assert 0.14 <= gaps[len(gaps) // 2] <= 0.25  # from end to start it would be 0.3
    assert gaps[-1] < 0.2 + SLACK


def test_a_check_does_not_overlap_itself(keep: Keep) -> None:
    meter = Meter()
    upstream = keep(Upstream(meter))
    one = target(upstream.address, interval=0.01, expect=b"ok")
    checked = keep(Checked(one))
    upstream.session()
    until = time.monotonic() + 0.1
    wait_until(lambda: time.monotonic() > until)  # ten intervals
    assert (upstream.accepted, checked.noted) == (1, [])
    meter.open.set()
    checked.wait(one, 3)
    assert meter.most == 1


# ---- many ----------------------------------------------------------------------------------------


def test_one_that_hangs_does_not_delay_another(keep: Keep, pki: Any) -> None:
    hanging = [
        target(keep(Blackhole()).address),
        target(keep(Upstream(hold)).address, expect=b"never"),
        target(keep(Upstream(hold)).address, type="tls", tls=CheckTLS(pki.ca.cert)),
    ]
    good = target(keep(Upstream()).address)
    checked = keep(Checked(*hanging, good))
    checked.wait(good, 20)
    assert {noted.target for noted in checked.noted} == {good}
    begins = [noted.began for noted in checked.noted[:20]]
    assert begins[-1] - begins[0] < 19 * EAGER.interval + SLACK


def test_more_than_may_run_at_once_wait_and_do_not_fail(keep: Keep) -> None:
    meter = Meter()
    upstream = keep(Upstream(meter))
    targets = [target(upstream.address, app=str(number), expect=b"ok") for number in range(6)]
    checked = keep(Checked(*targets, running_max=2))
    upstream.session(1)
    until = time.monotonic() + 4 * EAGER.interval
    wait_until(lambda: time.monotonic() > until)  # by now all are due
    assert upstream.accepted == 2
    meter.open.set()
    for one in targets:
        checked.wait(one, 2)
    assert all(noted.result.passed for noted in checked.noted)
    assert meter.most <= 2


def test_a_thousand_targets_are_checked_as_often_as_they_ask_for(keep: Keep) -> None:
    """A thousand a second; a busy machine may take three times as long."""
    upstream = keep(socket.create_server(("127.0.0.1", 0), backlog=4096))
    ended = threading.Event()

    def accept() -> None:
        while not ended.is_set():
            upstream.accept()[0].close()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    address = f"127.0.0.1:{upstream.getsockname()[1]}"
    targets = [target(address, app=str(number), interval=1.0) for number in range(1000)]
    began = time.monotonic()
    try:
        with Checked(*targets) as checked:
            wait_until(lambda: len(checked.noted) >= 3000)
            assert time.monotonic() - began < 3 * 3 + SLACK
    finally:
        ended.set()
        socket.create_connection(upstream.getsockname()).close()
        acceptor.join(PATIENCE)
    assert all(noted.result.passed for noted in checked.noted)


# ---- coming and going ----------------------------------------------------------------------------


def test_targets_come_and_go_while_it_runs(keep: Keep) -> None:
    refuser, upstream = keep(Refuser()), keep(Upstream())
    one, other = target(refuser.address), target(upstream.address)
    checked = keep(Checked())
    checked.checker.add(one)
    checked.checker.add(one)  # no second time
    checked.wait(one, 3)
    assert [result.count for result in checked.of(one)[:3]] == [1, 2, 3]
    checked.checker.remove(one)
    checked.checker.add(other)
    checked.wait(other, 1)  # by now a call that was under way is over
    seen = len(checked.of(one))
    checked.wait(other, 5)
    assert len(checked.of(one)) == seen
    checked.checker.remove(one)  # nothing any more
    checked.checker.add(one)
    wait_until(lambda: len(checked.of(one)) > seen)
    assert checked.of(one)[seen].count == 1


def test_nothing_is_said_of_a_target_that_is_gone(tmp_path: Path) -> None:
    """Although its check has ended: two end in the same round, and the second one is removed meanwhile."""
    one, other = target(f"unix:{tmp_path}/one.sock"), target(f"unix:{tmp_path}/other.sock")
    seen: list[Target] = []
    busy, go_on = threading.Event(), threading.Event()

    def take(target: Target, result: Result) -> None:
        seen.append(target)
        busy.set()
        go_on.wait(PATIENCE)

    checker = Checker(take, random=lambda: 0.0)
    checker.add(one)
    checker.add(other)
    checker.start()
    try:
        assert busy.wait(PATIENCE)
        checker.remove(other)
        go_on.set()
        wait_until(lambda: seen.count(one) >= 3)
    finally:
        go_on.set()
        checker.stop()
    assert set(seen) == {one}


def test_a_check_under_way_is_broken_off_with_its_target(keep: Keep) -> None:
    upstream = keep(Upstream(hold))
    one = target(upstream.address, expect=b"never")
    checked = keep(Checked(one))
    session = upstream.session()
    checked.checker.remove(one)
    session.released.set()
    session.wait_end()
    assert checked.noted == []


def test_targets_come_and_go_on_many_threads(keep: Keep) -> None:
    upstream = keep(Upstream())
    targets = [target(upstream.address, app=str(number), interval=0.02) for number in range(20)]
    checked = keep(Checked())

    def work() -> None:
        numbers = random.Random(threading.get_ident())
        for _ in range(300):
            one = numbers.choice(targets)
            numbers.choice((checked.checker.add, checked.checker.remove))(one)

    at_once(4, work)
    for one in targets:
        checked.checker.remove(one)
    last = target(upstream.address, app="last")
    checked.checker.add(last)
    checked.wait(last, 1)
    checked.noted.clear()
    checked.wait(last, 5)
    assert {noted.target for noted in checked.noted} == {last}


def test_a_result_may_remove_its_target(keep: Keep) -> None:
    upstream = keep(Upstream())
    one, other = target(upstream.address, app="one"), target(upstream.address, app="other")
    seen: list[Target] = []

    def once(target: Target, result: Result) -> None:
        seen.append(target)
        if target == one:
            checker.remove(one)

    checker = Checker(once)
    checker.add(one)
    checker.add(other)
    checker.start()
    try:
        wait_until(lambda: seen.count(one) and seen.count(other) >= 5)
        assert seen.count(one) == 1
    finally:
        checker.stop()


# ---- starting and stopping -----------------------------------------------------------------------


def test_stop_with_checks_under_way_leaves_nothing(keep: Keep, pki: Any) -> None:
    plain, shaking = keep(Upstream(hold)), keep(Upstream(hold))
    silent = keep(tls_upstream(pki))
    blackhole = keep(Blackhole())
    tls = CheckTLS(pki.ca.cert)
    before = descriptors()
    targets = [target(plain.address, app=str(number), expect=b"never") for number in range(30)]
    targets += [
        target(shaking.address, type="tls", tls=tls),
        target(silent.address, type="tls", tls=tls, expect=b"never"),
        target(blackhole.address),
    ]
    checked = Checked(*targets)
    plain.session(29)
    shaking.session()
    silent.session()
    accepted = 32  # of these the kit's own ends stay open for a moment
    assert descriptors() > before + accepted
    began = time.monotonic()
    checked.close()
    assert time.monotonic() - began < SLACK
    assert descriptors() <= before + accepted
    assert checked.noted == []
    assert health_threads() == []


def test_it_starts_once_and_stops_as_often_as_one_likes(keep: Keep) -> None:
    before = descriptors()
    one = target(keep(Refuser()).address)
    checker = Checker(lambda target, result: None)
    checker.add(one)
    checker.remove(one)
    checker.stop()  # it has not been started
    checker.start()
    with pytest.raises(RuntimeError, match="once"):
        checker.start()
    checker.stop()
    checker.stop()
    checker.add(one)
    checker.remove(one)
    with pytest.raises(RuntimeError, match="once"):
        checker.start()
    assert health_threads() == []
    assert descriptors() <= before + 1  # the refuser's


def test_it_has_one_thread(keep: Keep) -> None:
    upstream = keep(Upstream())
    targets = [target(upstream.address, app=str(number)) for number in range(20)]
    threads: set[int] = set()
    checker = Checker(lambda target, result: threads.add(threading.get_ident()))
    for one in targets:
        checker.add(one)
    checker.start()
    try:
        wait_until(lambda: threads)
        [thread] = health_threads()
        assert thread.daemon
        assert threads == {thread.ident}
    finally:
        checker.stop()


def test_failed_checks_are_gone_without_the_garbage_collector(keep: Keep, pki: Any) -> None:
    """Thousands a second may fail; what each of them held goes with it."""
    tls = CheckTLS(pki.ca.cert)
    mute, other = keep(Upstream(hold)), keep(tls_upstream(pki, identity=pki.rogue.issue("server")))
    targets = [
        target(mute.address, type="tls", tls=tls, timeout=0.05),
        target(mute.address, expect=b"never", timeout=0.05),
        target(other.address, type="tls", tls=tls),
        target(keep(Refuser()).address),
    ]
    under_way = target(mute.address, type="tls", tls=tls)
    checked = Checked(*targets, under_way)
    gc.collect()
    gc.disable()
    try:
        for one in targets:
            assert not any(result.passed for result in checked.wait(one, 3))
        checked.close()
        kinds = (Encrypted, Plain, CheckFailed, asyncio.Task)
        assert [found for found in gc.get_objects() if type(found) in kinds] == []
    finally:
        gc.enable()
        checked.close()


# ---- trouble of our own --------------------------------------------------------------------------


def test_whoever_takes_results_may_fail(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    one = target(keep(Upstream()).address)
    counts: list[int] = []

    def fail(target: Target, result: Result) -> None:
        counts.append(result.count)
        raise KeyError("a mistake")

    checker = Checker(fail)
    checker.add(one)
    checker.start()
    try:
        wait_until(lambda: len(counts) >= 3)
    finally:
        checker.stop()
    assert counts[:3] == [1, 2, 3]
    assert {(record.name, record.levelname) for record in caplog.records} == {("lbctl.health", "ERROR")}
    assert "a mistake" in caplog.text


def test_without_descriptors_nobody_is_held_responsible(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    one = target(keep(Refuser()).address, interval=0.02)
    checked = keep(Checked())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        checked.checker.add(one)
        wait_until(lambda: caplog.records)
        until = time.monotonic() + 0.1
        wait_until(lambda: time.monotonic() > until)  # five intervals
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert checked.noted == []
    [record] = caplog.records  # once, not for every check
    assert "Too many open files" in record.getMessage()
    assert checked.wait(one)[0].message == "connection refused"


def test_a_thread_that_was_held_up_blames_nobody(keep: Keep, caplog: pytest.LogCaptureFixture) -> None:
    """A deadline that passed unseen says nothing, but only once in a row: somebody who hangs is found out."""
    silent, quick = keep(Upstream(hold)), keep(Upstream())
    hanging = Target("web", silent.address, CheckSettings(interval=0.1, timeout=SHORT, expect=b"never"))
    noted: list[Result] = []
    hold_up, held_up, go_on = threading.Event(), threading.Event(), threading.Event()

    def take(target: Target, result: Result) -> None:
        if target == hanging:
            noted.append(result)
        elif hold_up.is_set() and not held_up.is_set():
            held_up.set()
            go_on.wait(PATIENCE)

    checker = Checker(take)
    checker.add(hanging)
    checker.add(target(quick.address, interval=0.01))
    checker.start()
    try:
        silent.session()
        hold_up.set()
        assert held_up.wait(PATIENCE)
        until = time.monotonic() + 3 * SHORT
        wait_until(lambda: time.monotonic() > until)  # past the deadline
        go_on.set()
        wait_until(lambda: noted)
    finally:
        go_on.set()
        checker.stop()
    assert [record.getMessage() for record in caplog.records] == [
        f"upstreams cannot be checked, {silent.address} among them: this process was held up"
    ]
    assert (noted[0].message, noted[0].count) == (f"no answer within {SHORT:g}s", 1)
    assert silent.accepted >= 2


def test_always_being_late_is_no_excuse(keep: Keep, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hangs is found out by a thread that is held up all the time, if at half the pace."""
    monkeypatch.setattr(rounds, "LATE", -1.0)  # every deadline is noticed too late
    upstream = keep(Upstream(hold))
    one = target(upstream.address, timeout=0.05, expect=b"never", fall=2)
    seen = [(result.state, result.count) for result in keep(Checked(one)).wait(one, 2)]
    assert seen == [("up", 1), ("down", 2)]
    assert upstream.accepted >= 4
