"""Keys and values of the configuration's contract whose feature this version does not have.

They are refused by name: an operator who wrote `on_revoke: close` must never get sessions that go on.
"""

from __future__ import annotations

from typing import Any

from lbctl.config.faults import Fault, Path

KEYS: tuple[tuple[str, ...], ...] = (
    ("admin",),
    ("cluster",),
    ("on_revoke",),
    ("tls", "on_revoke"),
    ("apps", "*", "on_revoke"),
    ("clients", "*", "on_revoke"),
)


class Unsupported(Fault):
    """A feature this version does not have."""


def take_out(tree: dict[str, Any]) -> list[Unsupported]:
    """Take those keys and values out of a tree, in place: one fault for each."""
    faults = []
    for pattern in KEYS:
        for path, _ in matches(tree, pattern):
            faults.append(Unsupported(path, "not supported in this version", at="key"))
    for fault in faults:
        _remove(tree, fault.path)
    return faults


def matches(tree: Any, pattern: tuple[str, ...], at: Path = ()) -> list[tuple[Path, Any]]:
    """Every (path, value) of the tree that fits a pattern; `*` is any key or list index."""
    if not pattern:
        return [(at, tree)]
    if pattern[0] != "*":
        if isinstance(tree, dict) and pattern[0] in tree:
            return matches(tree[pattern[0]], pattern[1:], (*at, pattern[0]))
        return []
    if isinstance(tree, dict):
        children: Any = tree.items()
    else:
        children = enumerate(tree) if isinstance(tree, list | tuple) else ()
    return [found for key, child in children for found in matches(child, pattern[1:], (*at, key))]


def _remove(tree: dict[str, Any], path: Path) -> None:
    parent: Any = tree
    for part in path[:-1]:
        parent = parent[part]
    del parent[path[-1]]
