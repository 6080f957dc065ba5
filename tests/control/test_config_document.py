"""Strict YAML: what a scalar is, and what is refused where."""

from __future__ import annotations

import os
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lbctl.config import document
from lbctl.config.spelling import Expanded, NumberLike


def parse(text: str | bytes, **environ: str) -> document.Document:
    data = text.encode() if isinstance(text, str) else text
    return document.parse(data, "lb.yaml", environ)


def tree(text: str, **environ: str) -> Any:
    found = parse(text, **environ)
    assert not found.problems
    return found.tree


def only_problem(text: str | bytes, **environ: str) -> tuple[int | None, int | None, str]:
    found = parse(text, **environ).problems
    assert len(found) == 1, found
    return found[0].line, found[0].column, found[0].message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("0", 0),
        ("-12", -12),
        ("0.5", 0.5),
        ("yes", "yes"),
        ("on", "on"),
        ("True", "True"),
        ("2026-11-23", "2026-11-23"),
        ("50/s", "50/s"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("4F3A", "4F3A"),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: object) -> None:
    found = tree(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text", ["22:22", "0123", "0x1001", "1e5", "12E4", "1_000", ".5", "+1", "0o17", "0b1", ".inf", "9" * 25]
)
def test_what_other_readers_take_for_a_number_stays_text(text: str) -> None:
    found = tree(f"a: {text}")["a"]
    assert found == text
    assert isinstance(found, NumberLike)


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, 1, "duplicate key 'a' (first at line 1)"),
        ("a:\n  b: 1\n  'b': 2\n", 3, 3, "duplicate key 'b' (first at line 2)"),
        ("a: {<<: {b: 1}}", 1, 5, "merge keys are not allowed; write the keys out"),
        ("a: &x [*x]", 1, 8, "'*x' is inside its own anchor '&x'"),
        ("a: *x", 1, 4, "'*x' has no anchor '&x' before it"),
        ("a: !!str 1", 1, 4, "the tag '!!str' is not allowed; write the plain value"),
        ("a: 1\n---\nb: 1\n", 2, 1, "a second document; a configuration is one document"),
        ("? [1]\n: 2\n", 1, 3, "a key must be one word or quoted text"),
        ("a: 1\n\tb: 2\n", 2, 1, "a tab character; YAML is indented with spaces"),
        ("a:\n", 1, 3, "no value; write one, or remove the key"),
        ("a: ~", 1, 4, "no value; write one, or remove the key"),
        ('a: "x\\ny"', 1, 4, "text must be on one line, without control characters"),
        ("a: b\x07", 1, 5, "control character U+0007"),
        ("[" * 1000, 1, 34, "nested deeper than 32 levels"),
    ],
)
def test_what_is_refused_and_where(text: str, line: int, column: int, message: str) -> None:
    assert only_problem(text) == (line, column, message)


def test_a_tag_runs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(os, "system", ran.append)
    _, _, message = only_problem('a: !!python/object/apply:os.system ["true"]')
    assert message == "the tag '!!python/object/apply:os.system' is not allowed; write the plain value"
    assert ran == []


def test_every_duplicate_is_reported_at_once() -> None:
    assert len(parse("a: 1\na: 2\na: 3\nb: 1\nb: 2\n").problems) == 3


def test_invalid_utf8_has_a_place() -> None:
    assert only_problem("a: ä\nb: ".encode() + b"\xff") == (2, 4, "not UTF-8 text")


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse(b"\xef\xbb\xbfa: 1").tree == {"a": 1}


def test_a_large_file_is_refused_unread() -> None:
    assert only_problem(b"#" * (document.SIZE_MAX + 1)) == (1, 1, "larger than 8 MiB")


def test_anchors_are_allowed() -> None:
    assert tree("a: &up [x, y]\nb: *up\n") == {"a": ["x", "y"], "b": ["x", "y"]}


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    found = parse("\n".join(lines))
    assert found.tree is None
    assert [problem.message for problem in found.problems] == ["aliases expand to more than 100000 values"]


def test_a_long_chain_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 3000)]
    assert parse("\n".join(lines)).problems[0].message == "aliases nest deeper than 32 levels"


def test_variables_are_expanded_once_and_never_read_as_yaml() -> None:
    found = tree("a: x-${N}-${M}\nb: '$$N ${N}'\n", N="[1, ${M}]", M="true")
    assert found == {"a": "x-[1, ${M}]-true", "b": "$N [1, ${M}]"}
    assert isinstance(found["a"], Expanded)
    assert found["a"].written == "x-${N}-${M}"


def test_keys_are_not_expanded() -> None:
    assert tree("'${N}': 1", N="x") == {"${N}": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: ${NOPE}", "the environment variable NOPE is not set"),
        ("a: $HOME", "a '$' stands alone; write ${NAME} for an environment variable or $$ for a '$'"),
        ("a: '${X:-1}'", "a '$' stands alone; write ${NAME} for an environment variable or $$ for a '$'"),
        ("a: ${LINES}", "the environment variable LINES holds a control character or a line break"),
    ],
)
def test_a_variable_that_cannot_be_used_has_a_place(text: str, message: str) -> None:
    assert only_problem(text, LINES="1\n2") == (1, 4, message)


@given(st.one_of(st.binary(max_size=200), st.text(alphabet="ab:-[]{}&*!#'\"\n\t ,|>%@`$<?~0", max_size=80)))
def test_arbitrary_bytes_never_raise(data: bytes | str) -> None:
    found = parse(data)
    assert found.tree is None or isinstance(found.tree, dict | list | str | int | float)
    for problem in found.problems:
        assert problem.render().startswith("lb.yaml:")


def test_the_parser_without_c_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a: [1, 'x', 22:22]\nb: &u {c: true}\nd: *u\n", "a: 1\na: 2\n", "a: !!int 1", "a: [*b]"]
    found = [(parsed.tree, parsed.problems) for parsed in map(parse, texts)]
    monkeypatch.setattr(document, "_Parser", yaml.SafeLoader)
    assert [(parsed.tree, parsed.problems) for parsed in map(parse, texts)] == found
