"""Rules over more than one key, for files and for Python alike."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lbctl.config import Config, build
from lbctl.config.model import App, Client, LimitClass, Upstream
from lbctl.config.unsupported import KEYS
from lbctl.errors import ConfigInvalid

GOOD: dict[str, Any] = {
    "version": 1,
    "tls": {"cert": "server.pem", "key": "server.key", "client_ca": "ca.pem"},
    "limits": {"default": {"rate": "50/s", "burst": 100}, "batch": {"concurrent": 5}},
    "apps": {
        "web": {"listen": "0.0.0.0:443", "upstreams": [{"address": "10.0.0.1:80"}]},
        "raw": {"listen": "[::]:80", "plaintext": True, "upstreams": [{"address": "10.0.0.2:80"}]},
    },
    "clients": {"alice": {"serials": ["4F:3A"], "apps": ["web"], "limits": {"web": "batch"}}},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A copy of GOOD with one more or one other value."""
    tree = copy.deepcopy(GOOD)
    parent: Any = tree
    *parts, last = path.split(".")
    for part in parts:
        parent = parent[int(part)] if part.isdigit() else parent.setdefault(part, {})
    parent[int(last) if last.isdigit() else last] = value
    return tree


def messages(tree: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        build(tree)
    return [f"{problem.path}: {problem.message}" for problem in caught.value.problems]


UPSTREAM = [{"address": "10.0.0.9:80"}]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("clients.alice.apps", ["wbe"], "clients.alice.apps.0: unknown app 'wbe'; did you mean 'web'?"),
        (
            "clients.alice.limits",
            {"wbe": "batch"},
            "clients.alice.limits.wbe: unknown app 'wbe'; did you mean 'web'?",
        ),
        ("clients.alice.limits", {"web": "bach"}, "unknown class of limits 'bach'; did you mean 'batch'?"),
        (
            "apps.web.limits",
            "defualt",
            "apps.web.limits: unknown class of limits 'defualt'; did you mean 'default'?",
        ),
        (
            "clients.alice.apps",
            ["raw"],
            "clients.alice.apps.0: app 'raw' is plaintext: nobody is identified there",
        ),
        (
            "clients.bob",
            {"serials": ["0x004f3a"]},
            "clients.bob.serials.0: the same serial as clients.alice.serials.0",
        ),
        (
            "clients.alice.serials",
            ["1", "01"],
            "clients.alice.serials.1: the same serial as clients.alice.serials.0",
        ),
        (
            "apps.x",
            {"listen": "127.0.0.1:443", "upstreams": UPSTREAM},
            "apps.x.listen: the same address as app 'web'",
        ),
        (
            "apps.x",
            {"listen": "[::]:443", "upstreams": UPSTREAM},
            "apps.x.listen: the same address as app 'web'",
        ),
        (
            "apps.x",
            {"listen": "10.0.0.1:80", "upstreams": UPSTREAM},
            "apps.x.listen: the same address as app 'raw'",
        ),
        (
            "apps.web.upstreams",
            UPSTREAM * 2,
            "upstreams.1.address: the same upstream as apps.web.upstreams.0",
        ),
        ("apps.web.upstreams.0.address", "0.0.0.0:80", "0.0.0.0 is not a place to connect to"),
        ("apps.web.upstreams.0.address", "10.0.0.1:0", "port 0 is not a place to connect to"),
        ("apps.web.upstreams.0.weight", 0, "expected a whole number from 1 to 65535"),
        ("apps.raw.alpn", ["h2"], "apps.raw.alpn: a plaintext app does not use it; remove it"),
        ("limits.default", {"burst": 5}, "limits.default.burst: needs a rate beside it"),
        ("tls.engine", "s3n", "tls.engine: expected auto or s2n or openssl; did you mean 's2n'?"),
        (
            "limits.batch.mode",
            "shdow",
            "limits.batch.mode: expected refuse or delay or shadow; did you mean 'shadow'?",
        ),
        ("limits.batch.mode", "delay", "limits.batch.mode: needs max_wait beside it, such as max_wait: 5s"),
        ("limits.batch.max_wait", "5s", "limits.batch.max_wait: nothing waits without mode: delay"),
        (
            "limits.default",
            {"rate": "1/s", "replace_oldest": True},
            "limits.default.replace_oldest: needs concurrent beside it, such as concurrent: 10",
        ),
        (
            "limits.batch",
            {"concurrent": 1, "replace_oldest": True, "mode": "shadow"},
            "limits.batch.replace_oldest: a shadow limit ends nothing; remove one of them",
        ),
        (
            "apps.web.app_limits",
            "bach",
            "apps.web.app_limits: unknown class of limits 'bach'; did you mean 'batch'?",
        ),
        ("node.limits", "bach", "node.limits: unknown class of limits 'bach'; did you mean 'batch'?"),
        ("node.limits_file", 7, "node.limits_file: expected text"),
        ("apps.web.listen", "unix:/x", "expected HOST:PORT; clients do not arrive on a unix socket"),
        ("apps.web.idle_timeout", "0s", "a duration must be at least 1ms"),
        ("apps.web.health.passive", {"max_ejected": "150%"}, "expected 0% to 100%"),
        ("apps.web.alpn", ["ä"], "an ALPN protocol is"),
        ("apps.web.on_truncated", "rst", "expected reset or eof"),
    ],
)
def test_a_broken_rule_is_one_error(path: str, value: Any, message: str) -> None:
    found = messages(changed(path, value))
    assert len(found) == 1, found
    assert message in found[0]


@pytest.mark.parametrize("pattern", KEYS, ids=".".join)
def test_a_key_without_its_feature_is_refused_and_never_ignored(pattern: tuple[str, ...]) -> None:
    names = {"apps": "web", "limits": "batch", "clients": "alice", "upstreams": "0"}
    path = [names[pattern[i - 1]] if part == "*" else part for i, part in enumerate(pattern)]
    assert messages(changed(".".join(path), "x")) == [f"{'.'.join(path)}: not supported in this version"]


def test_different_faults_are_reported_together() -> None:
    tree = changed("clients.alice.apps", ["wbe"])
    tree["admin"] = {}
    tree["apps"]["web"]["upstreams"] = []
    tree["extra"] = 1
    assert len(messages(tree)) == 4


@pytest.mark.parametrize("port", ["127.0.0.1:444", "127.0.0.1:0"])
def test_other_ports_do_not_clash(port: str) -> None:
    tree = changed("apps.x", {"listen": port, "upstreams": UPSTREAM})
    tree["apps"]["y"] = {"listen": "127.0.0.1:0", "upstreams": UPSTREAM}
    assert build(tree).apps["x"].listen == port


def test_two_hosts_may_share_a_port() -> None:
    tree = changed("apps.web.listen", "127.0.0.1:443")
    tree["apps"]["x"] = {"listen": "127.0.0.2:443", "upstreams": UPSTREAM}
    assert len(build(tree).apps) == 3


def test_the_class_default_is_that_of_apps_which_name_none() -> None:
    config = build(changed("apps.raw.limits", "batch"))
    assert config.apps["web"].limits == "default"
    assert config.apps["raw"].limits == "batch"


def test_tls_is_not_needed_when_every_app_is_plaintext() -> None:
    tree = changed("clients", {})
    del tree["tls"], tree["apps"]["web"]
    assert build(tree).tls is None


def test_python_and_file_have_one_set_of_rules(tmp_path: Path) -> None:
    assert build(GOOD, tmp_path).tls == build(GOOD, tmp_path).tls
    with pytest.raises(ValidationError, match="unknown app 'wbe'"):
        Config.model_validate(changed("clients.alice.apps", ["wbe"]))


def test_models_mixed_into_the_tree_obey_the_rules_too() -> None:
    app = App(listen="127.0.0.1:443", upstreams=(Upstream(address="10.0.0.1:80"),), limits="nope")
    tree = changed("apps.x", app)
    tree["clients"]["bob"] = Client(serials=("4F:3A",), apps=("x",))  # type: ignore[arg-type]  # text is parsed
    found = messages(tree)
    assert len(found) == 3
    assert any("unknown class of limits 'nope'" in message for message in found)


def test_python_may_use_numbers_where_a_file_needs_units() -> None:
    tree = changed("node", {"drain_timeout": 2.5})
    tree["limits"]["batch"] = LimitClass(rate=2.5)
    tree["clients"]["alice"]["serials"] = [0x4F3A]
    config = build(tree)
    assert config.node.drain_timeout == 2.5
    assert config.limits["batch"].rate == 2.5
    assert config.clients["alice"].serials == (0x4F3A,)


def test_python_may_write_windows_and_bandwidths_as_numbers() -> None:
    tree = changed("limits.default", {"window": (20, 10), "bandwidth_in": 500_000, "max_lifetime": 60})
    tree["limits"]["batch"] = {"window": "5/1m", "bandwidth_out": "10Mbit/s"}
    first, second = build(tree).limits["default"], build(tree).limits["batch"]
    assert (first.window, first.bandwidth_in, first.max_lifetime) == ((20, 10.0), 500_000.0, 60.0)
    assert (second.window, second.bandwidth_out) == ((5, 60.0), 1_250_000.0)


@pytest.mark.parametrize(
    "value", [(20,), (1, 2, 3), (20.0, 10.0), (True, 10.0), ("20", 10.0), (20, "10s"), (1, float("nan")), {}]
)
def test_no_pair_that_is_no_window(value: object) -> None:
    (found,) = messages(changed("limits.batch.window", value))
    assert found.startswith("limits.batch.window: ")


@pytest.mark.parametrize("mode", ["refuse", "shadow", None])
def test_without_delay_nothing_waits(mode: str | None) -> None:
    tree = changed("limits.batch", {"concurrent": 5, "max_wait": "5s"})
    if mode is not None:
        tree["limits"]["batch"]["mode"] = mode
    assert len(messages(tree)) == 1


def test_one_class_may_limit_a_client_an_app_and_the_node() -> None:
    tree = changed("apps.web.app_limits", "batch")
    tree["node"] = {"limits": "default", "limits_file": "/var/lib/lbctl/limits.json"}
    config = build(tree)
    assert config.apps["web"].app_limits == "batch"
    assert config.apps["raw"].app_limits is None, "the class default is for clients"
    assert config.node.limits == "default"
    assert config.node.limits_file == Path("/var/lib/lbctl/limits.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1, True])
def test_no_number_that_is_no_duration(value: object) -> None:
    assert messages(changed("node", {"drain_timeout": value}))[0].startswith("node.drain_timeout: ")


def test_what_a_model_dumps_makes_an_equal_model() -> None:
    config = build(GOOD)
    assert Config.model_validate(config.model_dump()) == config
    assert build(config.model_dump(mode="json", exclude_none=True)) == config


def test_a_config_never_changes() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        build(GOOD).node.name = "other"  # type: ignore[misc]  # the point of the test


def test_a_key_that_is_not_text_is_refused() -> None:
    assert messages(changed("clients", {7: {"serials": ["1"], "disabled": True}})) == [
        "clients.7: expected text; put quotes around it"
    ]


@pytest.mark.parametrize(
    ("listen", "upstream", "circle"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("10.0.0.1:80", "10.0.0.1:80", True),
        ("0.0.0.0:80", "10.0.0.1:80", False),  # another host has that port too
        ("0.0.0.0:80", "[::1]:80", False),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
    ],
)
def test_an_app_does_not_forward_to_itself(listen: str, upstream: str, circle: bool) -> None:
    app = {"listen": listen, "plaintext": True, "upstreams": [{"address": upstream}]}
    tree = {"version": 1, "apps": {"raw": app}}
    if circle:
        (found,) = messages(tree)
        assert "apps.raw.upstreams.0.address: this app's own listen address" in found
    else:
        assert build(tree).apps["raw"].upstreams
