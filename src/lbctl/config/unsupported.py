"""Keys and values of the configuration's contract whose feature this version does not have.

They are refused by name: an operator who wrote `upstream_tls` must never get plaintext.
"""

from __future__ import annotations

import copy
from typing import Any

from lbctl.config.faults import Fault, Path

KEYS: tuple[tuple[str, ...], ...] = (
    ("admin",),
    ("cluster",),
    ("on_revoke",),
    ("tls", "crl"),
    ("tls", "on_revoke"),
    ("apps", "*", "upstream_tls"),
    ("apps", "*", "proxy_protocol"),
    ("apps", "*", "slow_start"),
    ("apps", "*", "on_revoke"),
    ("apps", "*", "health", "active"),
    ("apps", "*", "upstreams", "*", "dns"),
    ("apps", "*", "upstreams", "*", "port"),
    ("apps", "*", "upstreams", "*", "srv"),
    ("limits", "*", "window"),
    ("limits", "*", "bandwidth_in"),
    ("limits", "*", "bandwidth_out"),
    ("limits", "*", "max_lifetime"),
    ("limits", "*", "max_wait"),
    ("clients", "*", "on_revoke"),
)
VALUES: tuple[tuple[tuple[str, ...], frozenset[str]], ...] = (
    (("tls", "engine"), frozenset({"openssl"})),
    (("limits", "*", "mode"), frozenset({"delay", "shadow", "replace_oldest"})),
)


class Unsupported(Fault):
    """A feature this version does not have."""


def take_out(data: dict[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """A tree without those keys and values (the given one stays as it is), and one fault for each."""
    found: list[tuple[Path, Fault]] = []
    for pattern in KEYS:
        for path, _ in matches(data, pattern):
            found.append((path, Unsupported(path, "not supported in this version", at="key")))
    for pattern, values in VALUES:
        for path, value in matches(data, pattern):
            if isinstance(value, str) and value in values:
                found.append((path, Unsupported(path, f"'{value}' is not supported in this version")))
    return without(data, [path for path, _ in found]), [fault for _, fault in found]


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


def without(tree: dict[str, Any], paths: list[Path]) -> dict[str, Any]:
    """A copy of the tree without the values at these paths; the tree itself when there are none."""
    if not paths:
        return tree
    result = copy.deepcopy(tree)
    for path in paths:
        parent: Any = result
        for part in path[:-1]:
            parent = parent[part]
        del parent[path[-1]]
    return result
