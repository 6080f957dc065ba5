"""Alerts as the control plane uses them: real programs, a real server, one thread for each hook."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kit.alerting import Said, program, written
from kit.fixtures import Keep
from kit.pki import Pki
from kit.processes import no_child_left, runs
from kit.store import Request, StoreServer
from kit.waiting import PATIENCE, wait_until

from lbctl.alerts import Alerts
from lbctl.alerts.deliveries import Deliveries
from lbctl.alerts.hook import NotDelivered
from lbctl.config.model import Alerts as Settings
from lbctl.errors import LbctlError
from lbctl.interrupt import Interrupt

UPSTREAM = ("db", "10.0.0.1:1")
COPY = "cat >>$out"
FOR_EVER = 1000.0


@pytest.fixture(autouse=True)
def nobody_left() -> Iterator[None]:
    """Neither a thread nor a child, zombies included."""
    yield
    assert no_child_left()
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("alerts")] == []


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def server(keep: Keep[StoreServer]) -> StoreServer:
    server = keep(StoreServer())
    server.answer = lambda request: request.send(200)
    return server


@pytest.fixture
def start(said: Said, keep: Keep[Alerts]) -> Callable[..., Alerts]:
    """Makes alerts that deliver; settings by name, and the rest of `Alerts` in `how`."""

    def make(how: dict[str, Any] | None = None, **settings: Any) -> Alerts:
        made = Alerts(
            Settings.model_validate({"min_interval": 0.0, **settings}),
            "lb-1",
            said,
            **{"pauses": (0.01, 0.01), **(how or {})},
        )
        made.start()
        return keep(made)

    return make


def url(server: StoreServer) -> str:
    return server.url.replace("{serial}", "")


def down(alerts: Alerts, *subject: str) -> None:
    app, upstream = subject or UPSTREAM
    alerts.alert("upstream_down", (app, upstream), "dials failed", app=app, upstream=upstream)


def up(alerts: Alerts) -> None:
    alerts.alert("upstream_recovered", UPSTREAM, "tried again", app="db", upstream="10.0.0.1:1")


def kinds(bodies: list[bytes]) -> list[str]:
    return [json.loads(body)["alert"] for body in bodies]


def test_what_an_alert_is(tmp_path: Path, server: StoreServer, start: Callable[..., Alerts]) -> None:
    """The same object for both hooks, on one line, with nothing in it that drives a terminal."""
    path = program(tmp_path / "hook", COPY, shell=True)
    alerts = start({"wall": lambda: 1_800_000_000.0625}, command=[path], webhook=url(server))
    alerts.alert("app_down", ("dБ",), "all\x1b down\n", app="dБ", upstreams=3)
    wait_until(lambda: server.posted and written(path), "both have it")
    assert written(path).count("\n") == 1
    assert json.loads(written(path)) == json.loads(server.posted[0])
    assert list(json.loads(server.posted[0]).items()) == [
        ("v", 1),
        ("ts", "2027-01-15T08:00:00.062Z"),
        ("alert", "app_down"),
        ("node", "lb-1"),
        ("app", "dБ"),
        ("upstreams", 3),
        ("message", "all\\x1b down\\n"),
    ]


def test_each_change_once_and_in_order(server: StoreServer, said: Said, start: Callable[..., Alerts]) -> None:
    alerts = start(webhook=url(server))
    for _ in range(3):
        down(alerts)
    up(alerts)
    up(alerts)
    alerts.alert("upstream_quarantined", UPSTREAM, "too slow")
    alerts.alert("certificate_expiry", ("a.pem", "7d"), "expires in 6d")
    alerts.alert("certificate_expiry", ("a.pem", "7d"), "expires in 5d")
    alerts.close()
    assert kinds(server.posted) == [
        "upstream_down",
        "upstream_recovered",
        "upstream_quarantined",
        "certificate_expiry",
    ]
    assert said.names() == []


def test_what_flapping_came_to_arrives_when_the_interval_is_over(
    server: StoreServer, start: Callable[..., Alerts]
) -> None:
    """Without another alert that would bring it along."""
    interval = 1.0
    alerts = start(webhook=url(server), min_interval=interval)
    began = time.monotonic()
    for _ in range(50):
        down(alerts)
        up(alerts)
    wait_until(lambda: len(server.posted) == 2, "nothing is left to do")
    down(alerts)
    wait_until(lambda: len(server.posted) == 3, "the last state")
    assert time.monotonic() - began >= interval
    assert kinds(server.posted) == ["upstream_down", "upstream_recovered", "upstream_down"]
    alerts.close()
    assert len(server.posted) == 3


def test_the_last_state_arrives_before_the_end(server: StoreServer, start: Callable[..., Alerts]) -> None:
    alerts = start(webhook=url(server), min_interval=FOR_EVER)
    down(alerts)
    up(alerts)
    down(alerts)
    alerts.close()
    assert kinds(server.posted) == ["upstream_down", "upstream_recovered", "upstream_down"]


def test_a_failure_is_tried_again(server: StoreServer, said: Said, start: Callable[..., Alerts]) -> None:
    answers = iter([500, 503, 200])
    server.answer = lambda request: request.send(next(answers))
    alerts = start(webhook=url(server))
    down(alerts)
    wait_until(lambda: len(server.posted) == 3, "three tries")
    alerts.close()
    assert len(set(server.posted)) == 1
    assert said.names() == []


def test_the_pauses_are_what_they_are(said: Said) -> None:
    """A second and five: what is waited for is recorded, not waited for."""
    paused: list[float | None] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            paused.append(timeout)
            return self.is_set()

    class Broken:
        name = "webhook"

        def deliver(self, alert: bytes, interrupt: Interrupt) -> None:
            raise NotDelivered("HTTP status 500")

    deliveries = Deliveries(Broken(), said, lambda: None)
    deliveries._stopping = Impatient()
    deliveries.put([b"{}"])
    deliveries.start()
    said.wait("alert.failed")
    deliveries.stop()
    deliveries.join(PATIENCE)
    assert paused == [1.0, 5.0]


def test_a_problem_is_said_once_and_so_is_its_end(
    server: StoreServer, said: Said, start: Callable[..., Alerts]
) -> None:
    status = [500]
    server.answer = lambda request: request.send(status[0])
    alerts = start({"pauses": ()}, webhook=url(server))

    def send(count: int) -> None:
        before = len(server.posted)
        for number in range(count):
            down(alerts, "db", f"10.0.0.{before}:{number + 1}")
        wait_until(lambda: len(server.posted) == before + count, "all were tried")

    send(3)
    status[0] = 503
    send(2)
    status[0] = 200
    send(2)
    alerts.close()
    assert said.events == [
        ("alert.failed", {"hook": "webhook", "message": "HTTP status 500"}),
        ("alert.failed", {"hook": "webhook", "message": "HTTP status 503"}),
        ("alert.resumed", {"hook": "webhook", "lost": 5}),
    ]


def test_what_a_program_complains_of_is_said(
    tmp_path: Path, said: Said, start: Callable[..., Alerts]
) -> None:
    path = program(tmp_path / "hook", "echo tried >>$out; echo no route >&2; exit 1", shell=True)
    alerts = start(command=[path])
    down(alerts)
    assert said.wait("alert.failed") == {"hook": "command", "message": "exit status 1", "stderr": "no route"}
    alerts.close()
    assert written(path) == "tried\n" * 3


def test_a_hook_that_hangs_holds_up_nobody_else(
    tmp_path: Path, server: StoreServer, start: Callable[..., Alerts]
) -> None:
    path = program(tmp_path / "hook", "echo $$ >>$out; exec sleep 1000", shell=True)
    alerts = start(command=[path], webhook=url(server), timeout=FOR_EVER)
    for number in range(1, 50):
        down(alerts, "db", f"10.0.0.1:{number}")
    wait_until(lambda: len(server.posted) == 49, "the other hook has all")
    wait_until(lambda: written(path), "it hangs")
    alerts.close(0.0)
    assert not runs(int(written(path)))


@pytest.mark.parametrize("hook", ["command", "webhook"])
def test_the_end_is_in_time_whatever_hangs(
    tmp_path: Path, server: StoreServer, said: Said, start: Callable[..., Alerts], hook: str
) -> None:
    path = program(tmp_path / "hook", "sleep 1000 &\necho $$ $! >>$out; wait", shell=True)
    server.answer = server.hang
    settings = {"command": [path]} if hook == "command" else {"webhook": url(server)}
    alerts = start(timeout=FOR_EVER, **settings)
    down(alerts)
    down(alerts, "db", "10.0.0.2:1")
    wait_until(lambda: written(path) if hook == "command" else server.posted, "the first hangs")
    began = time.monotonic()
    alerts.close(0.2)
    assert time.monotonic() - began < PATIENCE / 2
    message = "not delivered before the stop"
    assert said.events == [("alert.lost", {"hook": hook, "count": 2, "message": message})]
    pids = [int(pid) for pid in written(path).split()]
    wait_until(lambda: not any(map(runs, pids)), "its children are gone, too")


def test_the_end_does_not_wait_for_another_try(
    server: StoreServer, said: Said, start: Callable[..., Alerts]
) -> None:
    server.answer = lambda request: request.send(500)
    alerts = start({"pauses": (FOR_EVER,)}, webhook=url(server))
    down(alerts)
    wait_until(lambda: server.posted, "the first try")
    alerts.close(PATIENCE)
    assert said.names() == ["alert.failed", "alert.lost"]
    assert said.wait("alert.lost")["count"] == 1


def test_too_many_for_a_hook_that_hangs(
    server: StoreServer, said: Said, start: Callable[..., Alerts]
) -> None:
    """The oldest go, which is said once, and in the end how many."""
    server.answer = server.hang
    alerts = start({"waiting_max": 10}, webhook=url(server), timeout=FOR_EVER)
    down(alerts, "db", "10.0.0.1:1")
    wait_until(lambda: server.posted, "the first hangs")
    for number in range(2, 42):
        down(alerts, "db", f"10.0.0.1:{number}")
    assert said.events == [
        ("alert.lost", {"hook": "webhook", "message": "10 wait for it; the oldest are dropped"})
    ]
    server.answer = lambda request: request.send(200)
    server.gate.set()  # 404 for the first one, which is tried again
    assert said.wait("alert.resumed") == {"hook": "webhook", "lost": 30}
    alerts.close()
    upstreams = [json.loads(body)["upstream"] for body in server.posted]
    assert upstreams[-10:] == [f"10.0.0.1:{number}" for number in range(32, 42)]
    assert len(upstreams) == 12


def test_without_the_section_nothing_happens(said: Said) -> None:
    alerts = Alerts(None, "lb-1", said)
    alerts.start()
    down(alerts)
    alerts.close()
    assert said.names() == []


def test_closing_twice_and_alerts_after_it(server: StoreServer, start: Callable[..., Alerts]) -> None:
    alerts = start(webhook=url(server))
    alerts.close()
    alerts.close()
    down(alerts)
    assert server.posted == []


def test_one_that_never_began_can_be_closed(server: StoreServer, said: Said) -> None:
    alerts = Alerts(Settings(webhook=url(server)), "lb-1", said)
    down(alerts)
    alerts.close()
    assert server.posted == []
    assert said.wait("alert.lost")["count"] == 1


def test_what_was_dropped_is_counted_at_the_end(
    server: StoreServer, said: Said, start: Callable[..., Alerts]
) -> None:
    server.answer = server.hang
    alerts = start({"waiting_max": 2}, webhook=url(server), timeout=FOR_EVER)
    down(alerts)
    wait_until(lambda: server.posted, "the first hangs")
    for number in range(2, 7):
        down(alerts, "db", f"10.0.0.1:{number}")
    alerts.close(0.1)
    assert said.events[-1][1]["count"] == 1 + 2 + 3, "under way, waiting, dropped"


def test_a_hook_that_raises_anything_does_not_end_the_thread(said: Said) -> None:
    got: list[bytes] = []

    class Odd:
        name = "command"

        def deliver(self, alert: bytes, interrupt: Interrupt) -> None:
            got.append(alert)
            if alert == b"1":
                raise RuntimeError("odd")

    deliveries = Deliveries(Odd(), said, lambda: None, pauses=())
    deliveries.put([b"1", b"2"])
    deliveries.start()
    deliveries.stop()
    deliveries.join(PATIENCE)
    assert got == [b"1", b"2"]
    assert said.wait("alert.failed")["message"] == "an error of this program: RuntimeError('odd')"
    assert said.wait("alert.resumed")["lost"] == 1


def test_over_tls_and_from_many_threads(
    pki: Pki, said: Said, keep: Keep[Any], start: Callable[..., Alerts]
) -> None:
    server: StoreServer = keep(StoreServer(pki))

    def answer(request: Request) -> None:
        request.send(204)

    server.answer = answer
    alerts = start(webhook=url(server), ca=str(pki.ca.cert))
    threads = [
        threading.Thread(target=lambda app=app: [down(alerts, app, f"10.0.0.1:{n}") for n in range(1, 9)])
        for app in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alerts.close(PATIENCE)
    assert len(set(server.posted)) == 32
    assert said.names() == []


def test_a_ca_that_cannot_be_used_is_said_at_the_start(tmp_path: Path, said: Said) -> None:
    settings = Settings.model_validate({"webhook": "https://hooks.example/", "ca": str(tmp_path / "absent")})
    with pytest.raises(LbctlError, match=r"^alerts.ca: No such file or directory$"):
        Alerts(settings, "lb-1", said)
