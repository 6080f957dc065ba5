"""The keys of an app's upstreams: places, names, TLS, checks, and what they demand of each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit.pki import Pki

from lbctl.config import Config, build, check_files
from lbctl.config.dump import dump
from lbctl.config.load import read_bytes
from lbctl.errors import ConfigInvalid


def config(upstreams: Any, **app: Any) -> dict[str, Any]:
    section = {"listen": "127.0.0.1:0", "plaintext": True, "upstreams": upstreams, **app}
    return {"version": 1, "apps": {"web": section}}


def made(upstreams: Any, **app: Any) -> Config:
    return build(config(upstreams, **app))


def message(upstreams: Any, **app: Any) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        made(upstreams, **app)
    (problem,) = caught.value.problems
    return f"{problem.path}: {problem.message}"


ONE = [{"address": "10.0.0.1:80"}]


# ---- places --------------------------------------------------------------------------------------


def test_the_four_kinds_of_places() -> None:
    upstreams = [
        {"address": "10.0.0.1:80"},
        {"address": "unix:/run/web.sock"},
        {"dns": "Web.internal", "port": 80},
        {"srv": "_web._tcp.internal."},
    ]
    assert [upstream.place for upstream in made(upstreams).apps["web"].upstreams] == [
        "10.0.0.1:80",
        "unix:/run/web.sock",
        "dns:web.internal:80",
        "srv:_web._tcp.internal.",
    ]


def test_the_path_of_a_socket_starts_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert made([{"address": "unix:s"}]).apps["web"].upstreams[0].address == f"unix:{tmp_path}/s"


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        ({}, "apps.web.upstreams.0: needs one of address: HOST:PORT, dns: NAME with port: N, or srv: NAME"),
        (
            {"address": "10.0.0.1:80", "dns": "web", "port": 80},
            "apps.web.upstreams.0.dns: 'address' says where it is already; remove one of them",
        ),
        (
            {"srv": "_a._tcp.b", "dns": "web", "port": 80},
            "apps.web.upstreams.0.srv: 'dns' says where it is already; remove one of them",
        ),
        ({"dns": "web"}, "apps.web.upstreams.0.dns: needs port beside it, such as port: 5432"),
        ({"address": "10.0.0.1:80", "port": 80}, "apps.web.upstreams.0.port: belongs to dns"),
        ({"dns": "web", "port": 0}, "apps.web.upstreams.0.port: expected a whole number from 1 to 65535"),
        ({"dns": "web:80", "port": 80}, "apps.web.upstreams.0.dns: 'web:80' is not a host name"),
        ({"dns": "10.0.0.1", "port": 80}, "apps.web.upstreams.0.dns: '10.0.0.1' is an address, not a name"),
        ({"dns": "bücher.example", "port": 80}, "apps.web.upstreams.0.dns: 'bücher.example' is not ASCII"),
        ({"dns": "a..b", "port": 80}, "apps.web.upstreams.0.dns: 'a..b' is not a host name"),
        ({"srv": "web.internal"}, "apps.web.upstreams.0.srv: 'web.internal' is not a service"),
        ({"address": "unix:/" + "x" * 107}, "apps.web.upstreams.0.address: the path of a unix socket has"),
        ({"address": "unix:"}, "apps.web.upstreams.0.address: expected text, not an empty string"),
    ],
)
def test_a_wrong_place_is_one_error(upstream: Any, expected: str) -> None:
    assert message([upstream]).startswith(expected)


@pytest.mark.parametrize(
    "upstream",
    [{"dns": "web.internal", "port": 80}, {"srv": "_web._tcp.internal"}, {"address": "unix:/run/web.sock"}],
)
def test_a_place_is_there_once(upstream: dict[str, Any]) -> None:
    assert "the same upstream as apps.web.upstreams.0" in message([upstream, dict(upstream)])


def test_a_name_with_two_ports_is_two_upstreams() -> None:
    made([{"dns": "web.internal", "port": 80}, {"dns": "web.internal", "port": 81}])


# ---- TLS to them ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upstream", "tls", "expected"),
    [
        (ONE[0], {"ca": "x", "cert": "y"}, "apps.web.upstream_tls.cert: needs key beside it"),
        (ONE[0], {"ca": "x", "key": "y"}, "apps.web.upstream_tls.key: needs cert beside it"),
        (ONE[0], {"cert": "x", "key": "y"}, "apps.web.upstream_tls.ca: missing"),
        ({"srv": "_a._tcp.b"}, {"ca": "x"}, "apps.web.upstream_tls: needs verify_name"),
        ({"address": "unix:/x"}, {"ca": "x"}, "apps.web.upstream_tls: needs verify_name"),
        (ONE[0], {"ca": "x", "verify_name": "a b"}, "apps.web.upstream_tls.verify_name: 'a b' is not"),
    ],
)
def test_what_tls_demands(upstream: Any, tls: dict[str, str], expected: str) -> None:
    assert message([upstream], upstream_tls=tls).startswith(expected)


def private(path: Path) -> Path:
    path.chmod(0o600)
    return path


def test_its_files_are_looked_at(pki: Pki, tmp_path: Path) -> None:
    tls = {"ca": tmp_path / "none.pem", "cert": pki.alice.cert, "key": private(pki.bob.key)}
    problems = check_files(made(ONE, upstream_tls=tls))
    assert [problem.path for problem in problems] == ["apps.web.upstream_tls.ca", "apps.web.upstream_tls.key"]
    assert "is not the key of the certificate" in problems[1].message


def test_good_files_are_no_problem(pki: Pki) -> None:
    tls = {"ca": pki.ca.cert, "cert": pki.alice.cert, "key": private(pki.alice.key)}
    assert check_files(made(ONE, upstream_tls=tls)) == []


# ---- checks, and the rest ------------------------------------------------------------------------


def test_checks_are_off_by_default_and_on_with_an_empty_section() -> None:
    assert made(ONE).apps["web"].health.active is None
    active = made(ONE, health={"active": {}}).apps["web"].health.active
    assert active is not None
    assert (active.type, active.interval, active.timeout, active.rise, active.fall) == ("tcp", 2.0, 1.0, 2, 3)


@pytest.mark.parametrize(
    ("active", "expected"),
    [
        ({"type": "tls"}, "apps.web.health.active.type: needs upstream_tls"),
        ({"type": "http"}, "apps.web.health.active.type: expected tcp or tls"),
        ({"timeout": "3s"}, "apps.web.health.active.timeout: a check (3s) must be over before the next"),
        ({"interval": "500ms"}, "apps.web.health.active.interval: a check (1s) must be over before the next"),
        ({"fall": 0}, "apps.web.health.active.fall: expected a whole number from 1"),
        ({"expect": "€"}, "apps.web.health.active.expect: each character is one byte"),
        ({"send": ""}, "apps.web.health.active.send: expected text"),
    ],
)
def test_a_wrong_check_is_one_error(active: dict[str, Any], expected: str) -> None:
    assert message(ONE, health={"active": active}).startswith(expected)


def test_what_a_check_says_is_bytes() -> None:
    config = made(ONE, health={"active": {"send": "\x00\xff\r\n", "expect": b"+PONG"}})
    active = config.apps["web"].health.active
    assert active is not None
    assert (active.send, active.expect) == (b"\x00\xff\r\n", b"+PONG")


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("proxy_protocol", "v3", "apps.web.proxy_protocol: expected v1 or v2 or v2+tls"),
        ("proxy_protocol", "v2+tls", "apps.web.proxy_protocol: a plaintext app has no TLS to tell of;"),
        ("proxy_protocol_from", ["10.0.0.1/8"], "apps.web.proxy_protocol_from.0: '10.0.0.1/8' is an address"),
        ("proxy_protocol_from", ["10.0.0.0/33"], "apps.web.proxy_protocol_from.0: expected an IP address or"),
        ("affinity", "source", "apps.web.affinity: expected client"),
        ("on_down", "close", "apps.web.on_down: expected keep or drain or cut"),
        ("on_remove", "close", "apps.web.on_remove: expected keep or drain or cut"),
        ("slow_start", "0s", "apps.web.slow_start: a duration must be at least 1ms"),
    ],
)
def test_other_keys(key: str, value: Any, expected: str) -> None:
    assert message(ONE, **{key: value}).startswith(expected)


def test_networks_are_written_in_their_one_spelling() -> None:
    app = made(ONE, proxy_protocol_from=["10.0.0.0/8", "::1"]).apps["web"]
    assert app.proxy_protocol_from == ("10.0.0.0/8", "::1/128")


def test_what_a_check_says_in_a_file_and_back() -> None:
    """Line breaks and other bytes may stand in double quotes, there and nowhere else."""
    text = r"""
version: 1
apps:
  web:
    listen: 127.0.0.1:0
    plaintext: true
    upstreams: [{address: "10.0.0.1:80"}]
    health: {active: {send: "PING\r\n\x00\xff", expect: "+PONG\r\n"}}
"""
    loaded = read_bytes(text.encode(), "lb.yaml", Path("/"), {})
    active = loaded.config.apps["web"].health.active
    assert active is not None
    assert (active.send, active.expect) == (b"PING\r\n\x00\xff", b"+PONG\r\n")
    again = read_bytes(dump(loaded.config).encode(), "again.yaml", Path("/"), {})
    assert again.config.apps["web"].health == loaded.config.apps["web"].health
