"""What a client store may answer about a serial, read strictly.

    {"client": "billing-api", "apps": ["orders-db"], "limits": {"orders-db": "batch"}, "disabled": false}

`client` and `apps` are required. Apps this configuration does not have are ignored, with their limits: one
store may serve many balancers. Anything else that is not as above is an error, never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from lbctl.config.values import check_name, shorten
from lbctl.policy.store import ClientRecord

_KEYS = frozenset({"client", "apps", "limits", "disabled"})


def read_answer(body: bytes, apps: Collection[str], classes: Collection[str]) -> ClientRecord:
    """The record in an answer.

    Args:
        body: JSON.
        apps: those of the configuration.
        classes: its classes of limits.

    Raises:
        ValueError: it is not such a record; the text says why.
    """
    try:
        tree = json.loads(body.decode("utf-8"), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError("not JSON in UTF-8") from None
    if not isinstance(tree, dict):
        raise ValueError("not a JSON object")
    unknown = sorted(set(tree) - _KEYS)
    if unknown:
        raise ValueError(f"unknown key '{shorten(unknown[0])}'")
    for key in ("client", "apps"):
        if key not in tree:
            raise ValueError(f"'{key}' is missing")
    disabled = tree.get("disabled", False)
    if not isinstance(disabled, bool):
        raise ValueError("disabled: expected true or false")
    allowed = frozenset(app for app in _apps(tree["apps"]) if app in apps)
    return ClientRecord(
        _client(tree["client"]), allowed, _limits(tree.get("limits", {}), apps, classes), disabled, "store"
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _client(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("client: expected text")
    try:
        return check_name(value)
    except ValueError as error:
        raise ValueError(f"client: {error}") from None


def _apps(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(app, str) for app in value):
        raise ValueError("apps: expected a list of names")
    return value


def _limits(value: object, apps: Collection[str], classes: Collection[str]) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
        raise ValueError("limits: expected classes of limits by app")
    ours = {app: name for app, name in value.items() if app in apps}
    for name in ours.values():
        if name not in classes:
            raise ValueError(f"limits: unknown class of limits '{shorten(name)}'")
    return ours
