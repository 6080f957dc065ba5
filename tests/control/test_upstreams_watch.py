"""What becomes of checks and quarantines: states, events and alerts, without a socket."""

from __future__ import annotations

from typing import Any

import pytest

from lbctl.config.model import App
from lbctl.names import Found
from lbctl.upstreams.pool import Pool
from lbctl.upstreams.watch import Watch

ONE, TWO = "127.0.0.1:1", "127.0.0.1:2"


class Listener:
    """Takes down what is said."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.alerts: list[str] = []

    def say(self, name: str, /, **fields: Any) -> None:
        self.events.append((name, fields.get("upstream", ""), fields["state"]))

    def alert(self, kind: str, subject: tuple[object, ...], message: str, **fields: object) -> None:
        self.alerts.append(kind)


@pytest.fixture
def heard() -> Listener:
    return Listener()


@pytest.fixture
def watch(heard: Listener) -> Watch:
    return Watch(heard.say, heard.alert)


def pool(*upstreams: dict[str, Any], **app: Any) -> Pool:
    section = {"listen": "127.0.0.1:0", "plaintext": True, "upstreams": upstreams, **app}
    return Pool("web", App.model_validate(section), None, 1.0)


def states(of: Pool) -> dict[str, str]:
    return {address: state for address, (state, _) in of.states().items()}


def check(watch: Watch, of: Pool, address: str, *, up: bool, passed: bool) -> None:
    watch.checked(of, address, up=up, passed=passed, message="")


def test_each_change_is_told_once(watch: Watch, heard: Listener) -> None:
    servers = pool({"address": ONE}, {"address": TWO})
    for _ in range(3):
        check(watch, servers, ONE, up=False, passed=False)
    for _ in range(3):
        check(watch, servers, ONE, up=True, passed=True)
    assert heard.events == [("upstream", ONE, "DOWN"), ("upstream", ONE, "UP")]
    assert heard.alerts == ["upstream_down", "upstream_recovered"]


def test_while_another_is_up_it_takes_as_many_checks_as_the_rules_say(watch: Watch, heard: Listener) -> None:
    servers = pool({"address": ONE}, {"address": TWO})
    check(watch, servers, ONE, up=False, passed=False)
    check(watch, servers, ONE, up=False, passed=True)
    assert states(servers) == {ONE: "down", TWO: "up"}
    check(watch, servers, ONE, up=True, passed=True)
    assert states(servers) == {ONE: "up", TWO: "up"}


def test_where_none_is_up_the_first_passed_check_will_do(watch: Watch, heard: Listener) -> None:
    servers = pool({"address": ONE}, {"address": TWO})
    for address in (ONE, TWO):
        check(watch, servers, address, up=False, passed=False)
    check(watch, servers, ONE, up=False, passed=True)
    check(watch, servers, TWO, up=False, passed=True)
    assert states(servers) == {ONE: "up", TWO: "down"}
    check(watch, servers, ONE, up=False, passed=True)
    assert states(servers) == {ONE: "up", TWO: "down"}, "it stays as long as checks pass"
    check(watch, servers, ONE, up=False, passed=False)
    assert states(servers) == {ONE: "down", TWO: "down"}
    assert [event for event in heard.events if event[0] == "app"] == [
        ("app", "", "DOWN"),
        ("app", "", "UP"),
        ("app", "", "DOWN"),
    ]


def test_an_app_of_names_is_down_until_one_is_found(watch: Watch, heard: Listener) -> None:
    servers = pool({"dns": "web.internal", "port": 1})
    watch.look([servers])
    servers.answer(0, [Found(ONE, None)])
    watch.look([servers])
    watch.look([servers])
    assert heard.events == [("app", "", "DOWN"), ("app", "", "UP")]


def test_who_has_gone_is_forgotten(watch: Watch, heard: Listener) -> None:
    """One that comes again is a new one."""
    servers = pool({"dns": "web.internal", "port": 1})
    servers.answer(0, [Found(ONE, None), Found(TWO, None)])
    check(watch, servers, ONE, up=False, passed=False)
    servers.answer(0, [Found(TWO, None)])
    servers.sweep()
    watch.look([servers])
    servers.answer(0, [Found(ONE, None), Found(TWO, None)])
    watch.look([servers])
    assert states(servers) == {ONE: "up", TWO: "up"}
    check(watch, servers, ONE, up=False, passed=False)
    assert heard.events.count(("upstream", ONE, "DOWN")) == 2


def test_a_place_that_two_names_share_is_there_once() -> None:
    servers = pool({"dns": "a.internal", "port": 1}, {"dns": "b.internal", "port": 1, "weight": 3})
    servers.answer(1, [Found(ONE, None)])
    servers.answer(0, [Found(ONE, None)])
    (server,) = servers.application.upstreams
    assert server.weight == 1, "what stands first in the configuration"
    servers.answer(0, [Found(TWO, None)])
    assert [server.weight for server in servers.application.upstreams] == [3, 1]
    assert states(servers) == {ONE: "up", TWO: "up"}


def test_one_that_comes_back_before_it_has_left_stays(watch: Watch) -> None:
    servers = pool({"dns": "a.internal", "port": 1}, {"address": TWO})
    servers.answer(0, [Found(ONE, None)])
    before = next(server for server in servers.application.upstreams if server.address == ONE)
    servers.answer(0, [Found("127.0.0.1:3", None)])
    assert before.state == "draining"
    assert ONE not in states(servers)
    servers.answer(0, [Found(ONE, None)])
    assert before.state == "up"
    servers.sweep()
    assert {server.address for server in servers.application.upstreams} == {ONE, TWO}


def test_a_check_of_one_that_has_gone_is_nothing(watch: Watch, heard: Listener) -> None:
    servers = pool({"address": TWO})
    check(watch, servers, ONE, up=False, passed=False)
    assert states(servers) == {TWO: "up"}
    assert heard.alerts == []


def test_an_app_does_not_forward_to_itself() -> None:
    servers = pool({"dns": "a.internal", "port": 80}, listen="127.0.0.1:80")
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:80 is this app's own listen address"):
        servers.answer(0, [Found("127.0.0.1:80", None), Found(TWO, None)])
    assert set(states(servers)) == {TWO}, "the others were taken"
