"""Strict YAML: bytes in, a tree of plain values out, with the place of every key and value.

Built on PyYAML's stream of events and none of its constructors, so that no tag can run code and no
scalar becomes anything by guessing. Refused with their place: duplicate keys, merge keys, tags,
several documents, control characters, empty values. Aliases are allowed and bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from lbctl.config.expand import expand
from lbctl.config.faults import Path, dotted
from lbctl.config.places import Mark, Places, Source
from lbctl.config.problem import Problem
from lbctl.config.scalars import CONTROL, resolve
from lbctl.config.values import shorten

SIZE_MAX = 8 * 1024 * 1024  # bytes of one file
DEPTH_MAX = 32  # the format needs 7
ALIASED_NODES_MAX = 100_000  # nodes reached through aliases; written ones are bounded by the size
#: The ends of the keys whose text stands for bytes, line breaks and all.
BYTES = (("active", "send"), ("active", "expect"))

_Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is five times faster


@dataclass(slots=True)
class _Node:
    line: int
    column: int
    scalar: str | None = None
    plain: bool = False
    items: list[_Node] | None = None
    pairs: list[tuple[_Node, _Node]] | None = None


class _Broken(Exception):
    """The rest of the file cannot be understood."""


@dataclass
class Document:
    """One file that was read.

    Attributes:
        tree: its values: dict, list, str (see `spelling`), int, float, bool; None when empty or broken.
        places: where each path of the tree was written.
        problems: everything wrong with it so far.
        skipped: paths of values that were left out of the tree because of a problem.
    """

    source: Source
    tree: Any = None
    places: Places = field(default_factory=Places)
    problems: list[Problem] = field(default_factory=list)
    skipped: set[Path] = field(default_factory=set)

    def fail(self, message: str, line: int, column: int, *, path: Path = (), excerpt: bool = True) -> None:
        """Note a problem at a place counted from 1."""
        self.problems.append(Mark(self.source, line, column, excerpt).problem(message, dotted(path)))


def parse(data: bytes, name: str, environ: Mapping[str, str]) -> Document:
    """Read one file's bytes; never raises, whatever they are.

    Args:
        data: the content.
        name: the file as messages show it.
        environ: where ``${NAME}`` is looked up.
    """
    text, problem_at = _decode(data)
    document = Document(Source(name, text))
    document.places.put((), Mark(document.source, 1, 1, excerpt=False))
    if problem_at is not None:
        document.fail(*problem_at)
        return document
    try:
        node = _Composer(document, text).document()
        if node is not None:
            document.tree = _Converter(document, environ).convert(node, (), None)
    except _Broken:
        document.tree = None
    return document


def read_bytes(path: FilePath) -> bytes:
    """The content of a file, at most one byte more than `SIZE_MAX` of it.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return file.read(SIZE_MAX + 1)


def _decode(data: bytes) -> tuple[str, tuple[str, int, int] | None]:
    """The text, and what is wrong with it as a text: message, line, column."""
    if len(data) > SIZE_MAX:
        return "", (f"larger than {SIZE_MAX // 1024 // 1024} MiB", 1, 1)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        return data.decode("utf-8", "replace"), ("not UTF-8 text", line, column)
    bad = CONTROL.search(text)
    while bad is not None and bad[0] in "\t\n\r\x85\u2028\u2029":
        bad = CONTROL.search(text, bad.end())
    if bad is not None:
        line, column = text.count("\n", 0, bad.start()) + 1, bad.start() - text.rfind("\n", 0, bad.start())
        return text, (f"control character U+{ord(bad[0]):04X}", line, column)
    return text, None


class _Composer:
    """Events to nodes; duplicate keys, merge keys, tags and bad aliases are noted on the way."""

    def __init__(self, document: Document, text: str) -> None:
        self._document = document
        self._events = _events(document, text)
        self._anchors: dict[str, _Node] = {}
        self._open: set[str] = set()

    def document(self) -> _Node | None:
        """The root of the one document, or None when there is none."""
        root = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._fail(event, "a second document; a configuration is one document")
                root = self._node(next(self._events), 0)
        return root

    def _fail(self, event: Any, message: str) -> None:
        mark = event.start_mark
        self._document.fail(message, mark.line + 1, mark.column + 1)
        raise _Broken

    def _node(self, event: Any, depth: int) -> _Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if depth > DEPTH_MAX:
            self._fail(event, f"nested deeper than {DEPTH_MAX} levels")
        if event.tag is not None:
            self._tag(event)
        if event.anchor is not None:
            self._open.add(event.anchor)
        node = _Node(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            node.scalar, node.plain = event.value, event.style in (None, "")
        elif isinstance(event, yaml.SequenceStartEvent):
            node.items = list(self._items(depth))
        else:
            node.pairs = list(self._pairs(depth))
        if event.anchor is not None:
            self._open.discard(event.anchor)
            self._anchors[event.anchor] = node
        return node

    def _tag(self, event: Any) -> None:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._fail(event, f"the tag '{shorten(tag)}' is not allowed; write the plain value")

    def _alias(self, event: Any) -> _Node:
        name = shorten(event.anchor)
        if event.anchor in self._open:
            self._fail(event, f"'*{name}' is inside its own anchor '&{name}'")
        if event.anchor not in self._anchors:
            self._fail(event, f"'*{name}' has no anchor '&{name}' before it")
        return self._anchors[event.anchor]

    def _items(self, depth: int) -> Iterator[_Node]:
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _pairs(self, depth: int) -> Iterator[tuple[_Node, _Node]]:
        first: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            key = self._node(event, depth + 1)
            value = self._node(next(self._events), depth + 1)
            if key.scalar is None:
                self._document.fail("a key must be one word or quoted text", line, column)
            elif key.scalar == "<<" and key.plain:
                self._document.fail("merge keys are not allowed; write the keys out", line, column)
            elif key.scalar in first:
                message = f"duplicate key '{shorten(key.scalar)}' (first at line {first[key.scalar]})"
                self._document.fail(message, line, column, excerpt=False)
            else:
                first[key.scalar] = line
                yield key, value


def _events(document: Document, text: str) -> Iterator[Any]:
    """The events of a text; an error of syntax is noted and ends the file."""
    try:
        parser = _Parser(text)
        try:
            while (event := parser.get_event()) is not None:
                yield event
        finally:
            parser.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        document.fail(_syntax_message(error, document.source.line(line), column), line, column)
        raise _Broken from None
    except (yaml.YAMLError, ValueError):  # ValueError: an escape beyond U+10FFFF, in the parser without C
        document.fail("not YAML", 1, 1)
        raise _Broken from None


def _syntax_message(error: yaml.MarkedYAMLError, line: str, column: int) -> str:
    if "\t" in line[column - 1 : column] or re.match(r"[ ]*\t", line):
        return "a tab character; YAML is indented with spaces"
    parts = [part for part in (error.problem, error.context) if part]
    return "not YAML: " + shorten(", ".join(parts), 160)


class _Converter:
    """Nodes to values and places."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._seen: set[int] = set()
        self._aliased = 0

    def convert(self, node: _Node, path: Path, key: _Node | None, aliased: bool = False) -> Any:
        """The value of a node; its place and those below it are noted."""
        if len(path) > DEPTH_MAX:  # deeper than written: a chain of aliases
            self._document.fail(f"aliases nest deeper than {DEPTH_MAX} levels", node.line, node.column)
            raise _Broken
        aliased = aliased or id(node) in self._seen
        self._count(node, aliased)
        self._document.places.put(path, Mark.of(self._document.source, node, key))
        if node.scalar is not None:
            return self._scalar(node, node.scalar, path)
        if node.items is not None:
            return [self.convert(item, (*path, i), None, aliased) for i, item in enumerate(node.items)]
        tree = {}
        for name, item in node.pairs or ():
            value = self.convert(item, (*path, str(name.scalar)), name, aliased)
            if value is not None:
                tree[str(name.scalar)] = value
        return tree

    def _count(self, node: _Node, aliased: bool) -> None:
        self._seen.add(id(node))
        self._aliased += aliased
        if self._aliased > ALIASED_NODES_MAX:
            message = f"aliases expand to more than {ALIASED_NODES_MAX} values"
            self._document.fail(message, node.line, node.column)
            raise _Broken

    def _scalar(self, node: _Node, text: str, path: Path) -> Any:
        """The value, or None after noting why there is none."""
        value = resolve(text, node.plain)
        try:
            if value is None:
                raise ValueError("no value; write one, or remove the key")
            if not isinstance(value, str):
                return value
            if CONTROL.search(value) and path[-2:] not in BYTES:
                raise ValueError("text must be on one line, without control characters")
            return expand(value, self._environ)
        except ValueError as error:
            if not path:
                return None
            self._document.fail(str(error), node.line, node.column, path=path)
            self._document.skipped.add(path)
            return None
