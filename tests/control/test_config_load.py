"""A file from disk to a `Config`, or to every error at once."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbctl.config import Config, Loaded, find_config, load, read, read_bytes, render
from lbctl.errors import ConfigInvalid, ConfigMissing, ExitCode

TLS = "tls: {cert: certs/server.pem, key: certs/server.key, client_ca: certs/ca.pem}\n"
APP = 'apps:\n  web: {listen: "127.0.0.1:8443", upstreams: [{address: "10.0.0.1:80"}]}\n'
BASE = "version: 1\n" + TLS + APP


def loaded(text: str, *sets: str, **environ: str) -> Loaded:
    return read_bytes(text.encode(), "lb.yaml", Path("/etc/lb"), environ, sets)


def errors(text: str, *sets: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(text, *sets, **environ)
    return [problem.render().partition("\n")[0] for problem in caught.value.problems]


CONTRACT = """\
version: 1
apps:
  db:
    listen: 127.0.0.1:7306
    upstreams:
      - address: 10.0.0.1:5432
        wieght: 50
      - address: 10.0.0.2
  web:
    listen: 127.0.0.1:7443
    upstreams: []
    listen: 127.0.0.1:7444
tls: {cert: server.pem, key: server.key, client_ca: ca.pem}
"""


def test_the_error_block_of_the_contract() -> None:
    with pytest.raises(ConfigInvalid) as caught:
        loaded(CONTRACT)
    assert render(caught.value.problems, running=True) == textwrap.dedent("""\
        lb.yaml:7:9: error: apps.db.upstreams.0.wieght: unknown key; did you mean 'weight'?
            7 |         wieght: 50
              |         ^
        lb.yaml:8:18: error: apps.db.upstreams.1.address: expected HOST:PORT
            8 |       - address: 10.0.0.2
              |                  ^
        lb.yaml:11:16: error: apps.web.upstreams: needs at least one upstream
        lb.yaml:12:5: error: duplicate key 'listen' (first at line 10)
        4 errors. The running configuration was not touched.""")
    assert render(caught.value.problems).endswith("\n4 errors.")
    assert caught.value.exit_code is ExitCode.CONFIG
    assert caught.value.problems[0].as_json() == {
        "severity": "error",
        "file": "lb.yaml",
        "line": 7,
        "column": 9,
        "path": "apps.db.upstreams.0.wieght",
        "message": "unknown key; did you mean 'weight'?",
    }


def test_defaults_are_those_of_the_contract() -> None:
    config = loaded(BASE).config
    assert config.node.workers is None
    assert config.node.max_connections is None
    assert config.node.max_unauthenticated == 4096
    assert config.node.drain_timeout == 30.0
    assert config.tls is not None
    assert config.tls.engine == "auto"
    assert config.tls.handshake_timeout == 5.0
    assert config.tls.cert == Path("/etc/lb/certs/server.pem")
    web = config.apps["web"]
    assert (web.connect.timeout, web.connect.attempts) == (1.0, 3)
    assert (web.idle_timeout, web.half_close_timeout, web.tcp_keepalive) == (1800.0, 60.0, 60.0)
    assert (web.on_truncated, web.alpn, web.limits, web.max_connections) == ("reset", (), None, None)
    assert (web.health.passive.failures, web.health.passive.eject) == (5, 10.0)
    assert web.health.passive.max_ejected == 0.5
    assert (config.node.limits, config.node.limits_file, web.app_limits) == (None, None, None)
    empty = loaded(BASE + "limits: {empty: {}}\n").config.limits["empty"]
    assert (empty.rate, empty.burst, empty.concurrent, empty.window) == (None, None, None, None)
    assert (empty.bandwidth_in, empty.bandwidth_out, empty.max_lifetime) == (None, None, None)
    assert (empty.mode, empty.max_wait, empty.replace_oldest) == ("refuse", None, False)
    assert config.authorize_timeout == 2.0
    assert config.logging.max_denied_per_second == 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TLS + APP, "lb.yaml:1:1: error: version: missing; write version: 1"),
        ("version: 2\n" + TLS + APP, "version: expected 1; this is the only version of the format so far"),
        ("version: true\n" + TLS + APP, "version: expected 1; this is the only version of the format so far"),
        ("version: 1\n" + TLS, "lb.yaml:1:1: error: apps: missing; a configuration needs at least one app"),
        ("version: 1\napps: {}\n", "lb.yaml:2:7: error: apps: needs at least one app"),
        ("version: 1\n" + APP, "tls: missing; app 'web' needs tls: {cert: FILE, key: FILE, client_ca: FILE}"),
        (BASE + "node: {drain_timeout: 30}\n", "'30' has no unit; write 30s for seconds (or ms, m, h, d)"),
        (BASE + "node: {drain_timeout: '30'}\n", "'30' has no unit; write 30s for seconds (or ms, m, h, d)"),
        (BASE + "node: {workers: many}\n", "node.workers: expected auto or a whole number from 1 to 64"),
        (BASE + "node: {max_connections: 0}\n", "node.max_connections: expected a whole number from 1 to"),
        (BASE + "node: {max_connections: '5'}\n", "expected a whole number, without quotes"),
        (BASE + "node: {name: 5}\n", "node.name: expected text; put quotes around it"),
        (BASE + "node: [1]\n", "node: expected a mapping of keys and values"),
        (BASE + "limits: {a: {rate: 50}}\n", "'50' has no unit; write 50/s for per second (or /m, /h)"),
        (BASE + "limits: {a: {rate: 0/s}}\n", "a rate must be above 0"),
        (
            BASE + "limits: {a: {window: 20}}\n",
            "lb.yaml:5:22: error: limits.a.window: "
            "'20' has no period; write 20/10s for so many in any ten seconds",
        ),
        (
            BASE + "limits: {a: {window: [20, 10]}}\n",
            "lb.yaml:5:22: error: limits.a.window: expected text",
        ),
        (
            BASE + "limits: {a: {bandwidth_in: 500}}\n",
            "lb.yaml:5:28: error: limits.a.bandwidth_in: '500' has no unit; write 500B/s for bytes",
        ),
        (
            BASE + "limits: {a: {bandwidth_out: '11GB/s'}}\n",
            "limits.a.bandwidth_out: a bandwidth must be from 1B/s to 10GB/s",
        ),
        (
            BASE + "limits: {a: {mode: delay, rate: 1/s}}\n",
            "lb.yaml:5:20: error: limits.a.mode: needs max_wait beside it",
        ),
        (
            BASE + "limits: {a: {rate: 1/s, max_wait: 5s}}\n",
            "lb.yaml:5:25: error: limits.a.max_wait: nothing waits without mode: delay",
        ),
        (
            BASE + "node: {limits: nope}\n",
            "lb.yaml:5:16: error: node.limits: unknown class of limits 'nope'; there is no class of limits",
        ),
        (BASE + "limits: {a: {burst: 5}}\n", "lb.yaml:5:14: error: limits.a.burst: needs a rate beside it"),
        (
            BASE + "logging: {events: jsn}\n",
            "logging.events: expected auto or pretty or json; did you mean 'json'?",
        ),
        (BASE + "logging: {access: {sample: 2}}\n", "logging.access.sample: expected a number from 0 to 1"),
        (BASE + "clients: {a: {serials: 4F}}\n", "clients.a.serials: expected a list"),
        (BASE + "clients: {a: {serials: []}}\n", "clients.a.serials: needs at least one serial"),
        (BASE + "clients: {'a b': {serials: ['4F']}}\n", "no spaces and no '/'"),
        (BASE + "clients: {a: {serials: ['4F'], disabled: yes}}\n", "expected true or false"),
        (BASE + "client: {}\n", "lb.yaml:5:1: error: client: unknown key; did you mean 'clients'?"),
        ("- 1\n", "lb.yaml:1:1: error: not a mapping; expected keys such as version, tls, apps, clients"),
        ("", "lb.yaml:1:1: error: empty; expected keys such as version, tls, apps, clients"),
        ("# nothing\n", "empty; expected keys such as version, tls, apps, clients"),
    ],
)
def test_one_mistake_is_one_error(text: str, message: str) -> None:
    found = errors(text)
    assert len(found) == 1, found
    assert message in found[0]


@pytest.mark.parametrize(
    "serial", ["1234", "0x1001", "1e5", "0123", "51:22:08", "12345678901234567890123", "1.5"]
)
def test_an_unquoted_number_is_no_serial(serial: str) -> None:
    assert errors(BASE + f"clients: {{a: {{serials: [{serial}], disabled: true}}}}\n") == [
        "lb.yaml:5:25: error: clients.a.serials.0: "
        'quote it: a serial is hexadecimal text such as "4F:3A:91:0C", not a number'
    ]


def test_a_quoted_serial_is_hexadecimal() -> None:
    config = loaded(BASE + 'clients: {a: {serials: ["1234", "0x00:4f:3A"], apps: [web]}}\n').config
    assert config.clients["a"].serials == (0x1234, 0x4F3A)


def test_nothing_is_said_twice_about_an_empty_value() -> None:
    assert errors("version: 1\ntls:\n" + APP) == [
        "lb.yaml:2:5: error: tls: no value; write one, or remove the key"
    ]


def test_a_long_line_is_cut_around_the_place() -> None:
    text = BASE + "node: {" + "name: x, " + " " * 500 + "drain_timeout: 5" + " " * 500 + "}\n"
    with pytest.raises(ConfigInvalid) as caught:
        loaded(text)
    _, excerpt, caret = caught.value.problems[0].render().split("\n")
    assert excerpt[caret.index("^")] == "5"
    assert len(excerpt) < 140


def test_a_number_from_the_environment_is_one() -> None:
    config = loaded(BASE + "node: {workers: '${N}', drain_timeout: '${T}s'}\n", N="4", T="7").config
    assert (config.node.workers, config.node.drain_timeout) == (4, 7.0)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigMissing, match=r"lb\.yaml: no such file"):
        load(tmp_path / "lb.yaml", {})
    with pytest.raises(ConfigMissing, match="--config"):
        find_config(tmp_path / "lb.yaml", {})
    with pytest.raises(ConfigMissing, match=r"\$LBCTL_CONFIG"):
        find_config(None, {"LBCTL_CONFIG": str(tmp_path / "lb.yaml")})


def test_the_search_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lbctl.config.search.PLACES", (Path("lb.yaml"), tmp_path / "etc.yaml"))
    assert find_config(None, {}) is None
    (tmp_path / "etc.yaml").touch()
    assert find_config(None, {}) == tmp_path / "etc.yaml"
    (tmp_path / "lb.yaml").touch()
    assert find_config(None, {"LBCTL_CONFIG": ""}) == Path("lb.yaml")
    assert find_config(None, {"LBCTL_CONFIG": "etc.yaml"}) == Path("etc.yaml")
    assert find_config(Path("lb.yaml"), {"LBCTL_CONFIG": "etc.yaml"}) == Path("lb.yaml")


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot read it: Is a directory"):
        load(tmp_path, {})


def test_paths_start_from_the_file(tmp_path: Path) -> None:
    (tmp_path / "lb.yaml").write_text(BASE)
    config = read(tmp_path / "lb.yaml", {}).config
    assert config.tls is not None
    assert config.tls.client_ca == tmp_path / "certs/ca.pem"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (BASE + "clients: {a: {serials: ['4F']}}\n", "clients.a: may use nothing"),
        (BASE + "limits: {odd: {rate: 1/s}}\n", "limits.odd: no app and no client uses this class"),
        (BASE + "limits: {default: {}}\n", "limits.default: limits nothing"),
        (
            BASE + "limits: {a: {rate: 1/s, mode: shadow, bandwidth_in: 1MB/s}}\n",
            "lb.yaml:5:39: warning: limits.a.bandwidth_in: does nothing with mode: shadow",
        ),
        (
            BASE + "limits: {a: {max_lifetime: 1h, mode: delay, max_wait: 1s}}\n",
            "limits.a.mode: there is nothing to wait for; write rate, window or concurrent",
        ),
        (BASE, "apps.web: no client may use it"),
        (BASE + "clients: {a: {serials: ['4F'], apps: [web, web]}}\n", "apps.1: 'web' is listed twice"),
    ],
)
def test_what_is_odd_is_a_warning(text: str, warning: str) -> None:
    found = loaded(text).warnings
    assert any(warning in problem.render() for problem in found)
    assert {problem.severity for problem in found} == {"warning"}
    assert render(found).endswith("warning." if len(found) == 1 else "warnings.")


ALICE = "clients: {a: {serials: ['4F'], apps: [web]}}\n"


def test_an_unremarkable_file_has_no_warnings() -> None:
    assert loaded(BASE + ALICE).warnings == ()


@pytest.mark.parametrize(
    "limit",
    ["window: 1/1s", "bandwidth_in: 1MB/s", "bandwidth_out: 1MB/s", "max_lifetime: 1h", "concurrent: 1"],
)
def test_a_class_with_one_limit_that_the_node_uses_is_unremarkable(limit: str) -> None:
    text = BASE + ALICE + f"node: {{limits: odd}}\nlimits: {{odd: {{{limit}}}}}\n"
    assert loaded(text).warnings == ()


def test_two_thousand_clients_load() -> None:
    lines = "".join(f"  c{i}: {{serials: ['{i + 1:x}'], apps: [web]}}\n" for i in range(2000))
    assert len(loaded(BASE + "clients:\n" + lines).config.clients) == 2000


WORDS = st.sampled_from(
    [
        "version",
        "1",
        "apps",
        "tls",
        "clients",
        "web",
        "listen",
        "limits",
        ":",
        "\n  ",
        "\n",
        "- ",
        "[",
        "]",
        "{",
        "}",
        "upstreams",
        "address",
        ": ",
        "null",
        "'4F'",
        "serials",
        "include",
        "*",
        "&a ",
        "*a",
        "${X}",
    ]
)


@given(
    st.one_of(st.text(st.characters(codec="utf-8"), max_size=80), st.lists(WORDS, max_size=25).map("".join))
)
def test_arbitrary_text_is_a_config_or_config_invalid(text: str) -> None:
    try:
        config: Config | None = read_bytes(text.encode(), "lb.yaml", Path("/nonexistent"), {}).config
        shown = ""
    except ConfigInvalid as error:
        config, shown = None, render(error.problems)
    assert isinstance(config, Config) or shown.endswith(("error.", "errors."))


def test_a_variable_beside_a_key_that_is_not_supported() -> None:
    assert errors(BASE + "node: {name: '${N}'}\nadmin: {}\n", N="x") == [
        "lb.yaml:6:1: error: admin: not supported in this version"
    ]
