"""What the keys of `alerts` demand of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbctl.config.faults import Fault, Path
from lbctl.config.web_url import unused_by_http

AT: Path = ("alerts",)


def faults(tree: dict[str, Any]) -> Iterator[Fault]:
    """Everything that does not go together."""
    alerts = tree.get("alerts")
    if not isinstance(alerts, dict):
        return
    if alerts.get("command") is None and alerts.get("webhook") is None:
        yield Fault(AT, "needs command, webhook or both: who is to hear of them", at="key")
    elif alerts.get("webhook") is None and alerts.get("ca") is not None:
        yield Fault((*AT, "ca"), "needs webhook beside it", at="key")
    yield from unused_by_http(AT, alerts, "webhook", ("ca",))
