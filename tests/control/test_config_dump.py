"""Writing a configuration, and the schema of what may be written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lbctl.config import Loaded, build, dump, read_bytes, schema
from lbctl.config.unsupported import KEYS

TEXT = """\
version: 1
node: {drain_timeout: "${T}s", limits: odd, limits_file: state/limits.json}
tls: {cert: certs/a$$b.pem, key: "${KEYS}/server.key", client_ca: "${DIR}/ca.pem", expiry_warning: [30d, 90m]}
limits:
  default: {rate: 50/s, burst: 100}
  odd: {rate: 100/h, concurrent: 3}
  new: {window: 20/10s, bandwidth_in: "${T}MiB/s", bandwidth_out: 8Mbit/s, mode: delay, max_wait: 5s}
apps:
  db:
    app_limits: new
    listen: "[::]:1"
    upstreams: [{address: 1.2.3.4:5}]
    health: {passive: {max_ejected: 33.3%}}
  "1e5": {listen: 127.0.0.1:80, plaintext: true, upstreams: [{address: "[::1]:5", weight: 3}]}
  "true": {listen: 127.0.0.1:81, alpn: [http/1.1, "no: \\"way\\""], upstreams: [{address: "1.2.3.4:5"}]}
clients:
  größe: {serials: ["0x00ab", "12", "1e05"], apps: [db], limits: {db: odd}}
  "#7": {serials: ["0${T}"], disabled: true}
"""
ENVIRON = {"T": "7", "KEYS": "secret-name", "DIR": "/run/keys"}


def loaded(text: str = TEXT, *sets: str, base: str = "/etc/lb") -> Loaded:
    return read_bytes(text.encode(), "lb.yaml", Path(base), ENVIRON, sets)


def test_what_is_written_reads_back_equal_anywhere() -> None:
    first = loaded()
    assert loaded(dump(first), base="/elsewhere").config == first.config
    assert loaded(dump(first.config), base="/elsewhere").config == first.config
    assert loaded(dump(first, origins=True), base="/elsewhere").config == first.config


def test_what_is_written_is_a_fixed_point() -> None:
    once = dump(loaded())
    assert dump(loaded(once, base="/elsewhere")) == once


def test_other_yaml_readers_understand_it_the_same_way() -> None:
    tree = yaml.safe_load(dump(loaded()))
    assert tree["clients"]["größe"]["serials"] == ["AB", "12", "1E:05"]
    assert set(tree["apps"]) == {"db", "1e5", "true"}
    assert tree["apps"]["db"]["upstreams"] == [{"address": "1.2.3.4:5", "weight": 1}]


def test_values_of_the_environment_are_named_and_not_shown() -> None:
    text = dump(loaded())
    assert "secret-name" not in text
    assert 'key: "/etc/lb/${KEYS}/server.key"' in text
    assert 'client_ca: "${DIR}/ca.pem"' in text
    assert 'drain_timeout: "${T}s"' in text
    assert '- "0${T}"' in text


def test_limits_are_written_as_a_file_spells_them() -> None:
    limits = yaml.safe_load(dump(loaded().config))["limits"]
    assert limits["new"]["window"] == "20/10s"
    assert limits["new"]["bandwidth_in"] == "7MiB/s"
    assert limits["new"]["bandwidth_out"] == "1MB/s"
    assert (limits["new"]["mode"], limits["new"]["max_wait"]) == ("delay", "5s")
    assert "window" not in limits["odd"]


def test_each_value_says_where_it_comes_from() -> None:
    lines = dump(loaded(TEXT, "node.max_connections=9"), origins=True).splitlines()
    origin = {line.split()[0]: line.rpartition("  # ")[2] for line in lines if "  # " in line}
    assert origin["drain_timeout:"] == "lb.yaml:2"
    assert origin["max_connections:"] == "--set node.max_connections"
    assert origin["workers:"] == "default"
    assert origin["concurrent:"] == "lb.yaml:6"


@given(
    st.builds(
        lambda name, drain, rate, serial, weight: {
            "version": 1,
            "node": {"name": name, "drain_timeout": drain},
            "limits": {name: {"rate": rate, "window": [weight, drain + 0.001], "bandwidth_in": rate + 1}},
            "apps": {name: {"listen": "127.0.0.1:1", "plaintext": True, "upstreams": [upstream(weight)]}},
            "clients": {name: {"serials": [serial], "disabled": True}},
        },
        st.text(min_size=1, max_size=20).filter(lambda t: t.isprintable() and not re.search(r"[\s/]", t)),
        st.integers(0, 10**7).map(lambda ms: ms / 1000),
        st.floats(0.001, 1e6).map(lambda rate: round(rate, 3)),
        st.integers(1, 2**160 - 1),
        st.integers(1, 65535),
    )
)
def test_any_configuration_survives_writing_and_reading(tree: dict[str, Any]) -> None:
    config = build(tree)
    assert read_bytes(dump(config).encode(), "lb.yaml", Path("/"), {}).config == config


def upstream(weight: int) -> dict[str, Any]:
    return {"address": "10.0.0.1:80", "weight": weight}


def properties(node: Any) -> set[str]:
    """Every property name anywhere in a schema."""
    if isinstance(node, list):
        return set().union(*map(properties, node))
    if not isinstance(node, dict):
        return set()
    return set(node.get("properties", {})).union(*map(properties, node.values()))


def test_the_schema_knows_every_key_and_none_that_is_not_supported() -> None:
    made = schema()
    known = properties(made)
    assert {"version", "listen", "upstreams", "serials", "max_ejected", "include"} <= known
    assert not known & {pattern[-1] for pattern in KEYS}
    assert set(made["required"]) == {"version", "apps"}
    assert made["additionalProperties"] is False
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(
    ("section", "key", "default"),
    [
        ("Node", "drain_timeout", "30s"),
        ("Node", "workers", "auto"),
        ("App", "idle_timeout", "30m"),
        ("PassiveHealth", "max_ejected", "50%"),
        ("Upstream", "weight", 1),
        ("LimitClass", "mode", "refuse"),
        ("LimitClass", "replace_oldest", False),
        ("Alerts", "min_interval", "1m"),
    ],
)
def test_the_schema_spells_defaults_as_the_file_does(section: str, key: str, default: object) -> None:
    assert schema()["$defs"][section]["properties"][key]["default"] == default


@pytest.mark.parametrize(
    ("section", "key", "good", "bad"),
    [
        ("Node", "drain_timeout", ["30s", "1.5h", "${T}"], ["30", "s", "1w"]),
        ("LimitClass", "rate", ["50/s", "100/h"], ["50", "50s"]),
        ("LimitClass", "window", ["20/10s", "5/1.5h", "${W}"], ["20", "20/s", "1.5/s", "20/10"]),
        ("LimitClass", "bandwidth_in", ["1MiB/s", "0.5kB/s", "10Mbit/s"], ["1", "1MB", "1Mib/s", "1Kibit/s"]),
        ("PassiveHealth", "max_ejected", ["50%"], ["50"]),
        ("Alerts", "webhook", ["https://hooks.internal/lb", "${HOOK}"], ["hooks.internal", "https://{x}"]),
        ("App", "listen", ["0.0.0.0:443", "[::]:443"], ["localhost:443", "443"]),
    ],
)
def test_the_patterns_of_the_schema(section: str, key: str, good: list[str], bad: list[str]) -> None:
    pattern = schema()["$defs"][section]["properties"][key]["pattern"]
    assert all(re.search(pattern, text) for text in good)
    assert not any(re.search(pattern, text) for text in bad)


def test_the_schema_has_no_null() -> None:
    assert '"null"' not in json.dumps(schema())
