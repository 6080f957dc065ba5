"""Single values from the environment and the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbctl.config import Loaded, read_bytes
from lbctl.errors import ConfigInvalid

BASE = """\
version: 1
tls: {cert: server.pem, key: server.key, client_ca: ca.pem}
node: {drain_timeout: 1s}
apps:
  orders-db: {listen: "127.0.0.1:1", upstreams: [{address: "10.0.0.1:80"}]}
  a.b__c: {listen: "127.0.0.1:2", upstreams: [{address: "10.0.0.1:80"}]}
"""


def loaded(*sets: str, **environ: str) -> Loaded:
    return read_bytes(BASE.encode(), "lb.yaml", Path("/etc/lb"), environ, sets)


def errors(*sets: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(*sets, **environ)
    return [problem.render() for problem in caught.value.problems]


def test_the_command_line_wins_over_the_environment_over_the_file_over_defaults() -> None:
    environ = {"LBCTL_SET__node__drain_timeout": "2s"}
    assert loaded().config.node.drain_timeout == 1.0
    assert loaded(**environ).config.node.drain_timeout == 2.0
    assert loaded("node.drain_timeout=3s", **environ).config.node.drain_timeout == 3.0
    assert loaded("node.drain_timeout=3s", "node.drain_timeout=4s").config.node.drain_timeout == 4.0


def test_values_take_the_type_of_their_key() -> None:
    config = loaded(
        "node.workers=4",
        "node.max_connections=100",
        "apps.orders-db.plaintext=true",
        "logging.access.sample=0.5",
        "limits.default.rate=5/s",
        "limits.default.window=20/10s",
        "limits.default.bandwidth_out=1MiB/s",
        "limits.default.concurrent=3",
        "limits.default.replace_oldest=true",
        "limits.default.mode=delay",
        "limits.default.max_wait=2s",
        "node.limits=default",
        "apps.orders-db.health.passive.max_ejected=25%",
        "clients.new.serials.0=1234",
        "clients.new.disabled=false",
    ).config
    assert (config.node.workers, config.node.max_connections) == (4, 100)
    assert config.apps["orders-db"].plaintext is True
    assert config.apps["orders-db"].health.passive.max_ejected == 0.25
    assert config.logging.access.sample == 0.5
    limits = config.limits["default"]
    assert (limits.rate, limits.window, limits.bandwidth_out) == (5.0, (20, 10.0), 2.0**20)
    assert (limits.replace_oldest, limits.mode, limits.max_wait) == (True, "delay", 2.0)
    assert config.node.limits == "default"
    assert config.clients["new"].serials == (0x1234,)


@pytest.mark.parametrize(
    "name",
    ["LBCTL_SET__apps__a.b_x5F5F_c__max_connections", "LBCTL_SET__apps__a_x2E_b_x5F5F_c__max_connections"],
)
def test_any_key_can_be_named_in_the_environment(name: str) -> None:
    assert loaded(**{name: "7"}).config.apps["a.b__c"].max_connections == 7


def test_any_key_can_be_named_on_the_command_line() -> None:
    assert loaded('apps."a.b__c".max_connections=7').config.apps["a.b__c"].max_connections == 7


def test_list_elements_go_by_index_and_the_next_one_is_added() -> None:
    config = loaded(
        "apps.orders-db.upstreams.0.weight=5",
        "apps.orders-db.upstreams.1.address=10.0.0.2:80",
        "tls.expiry_warning.0=2d",
    ).config
    assert [(u.address, u.weight) for u in config.apps["orders-db"].upstreams] == [
        ("10.0.0.1:80", 5),
        ("10.0.0.2:80", 1),
    ]
    assert config.tls is not None
    assert config.tls.expiry_warning == (172800.0,)


def test_a_relative_path_starts_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = loaded("tls.cert=mine.pem").config
    assert config.tls is not None
    assert config.tls.cert == tmp_path / "mine.pem"
    assert config.tls.key == Path("/etc/lb/server.key")


def test_a_value_is_taken_as_it_is() -> None:
    assert loaded("node.name=${HOME}=[1]", HOME="/root").config.node.name == "${HOME}=[1]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("node", "--set node: error: write PATH=VALUE, such as --set node.drain_timeout=10s"),
        ("=5", "--set =5: error: write PATH=VALUE, such as --set node.drain_timeout=10s"),
        ("node..name=5", "--set node..name=5: error: write PATH=VALUE, such as --set node.drain_timeout=10s"),
        (
            "node.drain_timeout=10",
            "--set node.drain_timeout: error: node.drain_timeout: "
            "'10' has no unit; write 10s for seconds (or ms, m, h, d)",
        ),
        (
            "node.drain_timout=10s",
            "--set node.drain_timout: error: node.drain_timout: unknown key; did you mean 'drain_timeout'?",
        ),
        ("nod.name=x", "--set nod.name: error: nod: unknown key; did you mean 'node'?"),
        (
            "node.name.first=x",
            "--set node.name.first: error: node.name: holds a single value, nothing below it",
        ),
        (
            "apps.orders-db.upstreams=x",
            "--set apps.orders-db.upstreams: error: apps.orders-db.upstreams: "
            "a whole list or mapping cannot be overridden; name one value in it",
        ),
        (
            "apps.orders-db.upstreams.2.weight=1",
            "--set apps.orders-db.upstreams.2.weight: error: apps.orders-db.upstreams.2: "
            "expected a list index from 0 to 1",
        ),
        ("include.0=x", "--set include.0: error: include.0: 'include' cannot be overridden"),
        (
            "node.name=a\nb",
            "--set node.name: error: node.name: the value holds a control character or a line break",
        ),
        (
            "node.workers=4x",
            "--set node.workers: error: node.workers: expected auto or a whole number from 1 to 64",
        ),
        (
            "apps.orders-db.on_revoke=close",
            "--set apps.orders-db.on_revoke: error: apps.orders-db.on_revoke: "
            "not supported in this version",
        ),
    ],
)
def test_a_bad_override_is_named(text: str, message: str) -> None:
    assert errors(text) == [message]


def test_a_bad_variable_is_named_without_its_value() -> None:
    assert errors(LBCTL_SET__node__drain_timeout="secret") == [
        "environment LBCTL_SET__node__drain_timeout: error: node.drain_timeout: "
        "expected a duration with a unit (ms, s, m, h, d) such as 30s"
    ]


@pytest.mark.parametrize(
    "name", ["LBCTL_SET__", "LBCTL_SET__node__", "LBCTL_SET__node____x", "LBCTL_SET___xFF_"]
)
def test_a_variable_that_names_nothing_is_refused(name: str) -> None:
    assert errors(**{name: "1"}) == [
        f"environment {name}: error: write LBCTL_SET__ and the path, parts joined by '__'"
    ]


def test_other_variables_of_the_environment_do_not_matter() -> None:
    assert loaded(LBCTL_CONFIG="x", LBCTL_SETTING="y").config == loaded().config


def test_an_override_mends_an_empty_value_no_more_than_the_file() -> None:
    text = BASE.replace("drain_timeout: 1s", "drain_timeout: ~")
    with pytest.raises(ConfigInvalid, match="no value; write one"):
        read_bytes(text.encode(), "lb.yaml", Path("/etc/lb"), {}, ["node.drain_timeout=1s"])
