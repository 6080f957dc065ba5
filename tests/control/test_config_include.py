"""`include:` and what an included file may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbctl.config import Config, load
from lbctl.errors import ConfigInvalid

MAIN = """\
version: 1
tls: {cert: server.pem, key: server.key, client_ca: ca.pem}
apps:
  web: {listen: "127.0.0.1:8443", upstreams: [{address: "10.0.0.1:80"}]}
clients:
  alice: {serials: ["01"], apps: [web]}
include: [%s]
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clients.d").mkdir()


def included(include: str, **files: str) -> Config:
    for name, text in files.items():
        Path(f"clients.d/{name}.yaml").write_text(text)
    Path("lb.yaml").write_text(MAIN % include)
    return load(Path("lb.yaml"), {"WHO": "b"})


def errors(include: str, **files: str) -> list[str]:
    with pytest.raises(ConfigInvalid) as caught:
        included(include, **files)
    return [problem.render().partition("\n")[0] for problem in caught.value.problems]


BOB = 'clients:\n  bob: {serials: ["02"], apps: [web]}\n'
CAROL = 'version: 1\nclients:\n  carol: {serials: ["03"], apps: [web]}\n'


def test_clients_of_all_files_come_together() -> None:
    assert list(included("clients.d/*.yaml", b=BOB, c=CAROL).clients) == ["alice", "bob", "carol"]


@pytest.mark.parametrize("text", ["", "# none yet\n", "clients: {}\n", "version: 1\n"])
def test_an_inventory_may_be_empty(text: str) -> None:
    assert list(included("clients.d/*.yaml", b=text).clients) == ["alice"]


def test_a_pattern_may_match_nothing() -> None:
    assert list(included("clients.d/*.yaml").clients) == ["alice"]


def test_a_file_that_is_named_must_be_there() -> None:
    assert errors("clients.d/b.yaml") == [
        "lb.yaml:7:11: error: include.0: cannot read clients.d/b.yaml: No such file or directory"
    ]


def test_a_file_that_two_entries_match_is_read_once() -> None:
    assert len(included("clients.d/b.yaml, 'clients.d/*.yaml'", b=BOB).clients) == 2


def test_variables_work_in_names_and_in_the_files() -> None:
    text = BOB.replace('"02"', '"0${WHO}"')
    assert included("'clients.d/${WHO}.yaml'", b=text).clients["bob"].serials == (0x0B,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "include: [x.yaml]\n",
            "clients.d/b.yaml:1:1: error: include: an included file cannot include others",
        ),
        ("apps: {}\n", "clients.d/b.yaml:1:1: error: apps: an included file may hold 'clients' only"),
        ("cleints: {}\n", "an included file may hold 'clients' only; did you mean 'clients'?"),
        ("version: 2\n", "clients.d/b.yaml:1:10: error: version: expected 1"),
        ("- 1\n", "clients.d/b.yaml:1:1: error: expected a mapping with the key 'clients'"),
        ("clients: []\n", "clients.d/b.yaml:1:10: error: clients: expected a mapping of keys and values"),
        ("clients: [\n", "clients.d/b.yaml:2:1: error: not YAML: "),
        (
            'clients:\n  bob: {serials: ["02"], aps: [web]}\n',
            "clients.d/b.yaml:2:26: error: clients.bob.aps: unknown key; did you mean 'apps'?",
        ),
        (
            'clients:\n  bob: {serials: ["0001"], apps: [web]}\n',
            "clients.d/b.yaml:2:19: error: clients.bob.serials.0: the same serial as clients.alice.serials.0 "
            "(first at lb.yaml:6)",
        ),
        (
            'clients:\n  alice: {serials: ["02"]}\n',
            "clients.d/b.yaml:2:3: error: clients.alice: the same client twice (first at lb.yaml:6)",
        ),
    ],
)
def test_a_mistake_carries_the_name_of_its_file(text: str, message: str) -> None:
    found = errors("clients.d/*.yaml", b=text)
    assert len(found) == 1, found
    assert message in found[0]


def test_a_client_of_two_included_files_names_both() -> None:
    assert errors("clients.d/*.yaml", b=BOB, c=BOB) == [
        "clients.d/c.yaml:2:3: error: clients.bob: the same client twice (first at clients.d/b.yaml:2)"
    ]


@pytest.mark.parametrize(
    ("include", "message"),
    [
        ("1", "lb.yaml:7:11: error: include.0: expected a file name or pattern"),
        ("[a]", "lb.yaml:7:11: error: include.0: expected a file name or pattern"),
        ("clients.d", "lb.yaml:7:11: error: include.0: cannot read clients.d: Is a directory"),
    ],
)
def test_a_bad_entry_is_named(include: str, message: str) -> None:
    assert errors(include) == [message]


def test_the_list_is_a_list() -> None:
    Path("lb.yaml").write_text(MAIN.replace("[%s]", "x.yaml"))
    with pytest.raises(ConfigInvalid, match=r"include: expected a list of file names or patterns"):
        load(Path("lb.yaml"), {})
