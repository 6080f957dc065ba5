"""Names one section mentions and another one defines: apps, classes of limits, TLS."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lbctl.config.faults import Fault, Path, did_you_mean
from lbctl.config.values import DURATION_MAX, is_number, parse_duration, parse_rate, shorten

DEFAULT_CLASS = "default"
REFILL_MAX = 1e9  # seconds; the limiter counts in nanoseconds


def section(tree: Any, name: str) -> dict[str, Any]:
    """The mapping under a key; empty when it is something else (which a field rule reports)."""
    found = tree.get(name) if isinstance(tree, dict) else None
    return found if isinstance(found, dict) else {}


def seconds(value: object, default: float) -> float | None:
    """A duration as it was written; None when it is wrong, which a field rule reports."""
    if value is None:
        return default
    try:
        if isinstance(value, str):
            return parse_duration(value)
        return float(value) if is_number(value) and 0 < value <= DURATION_MAX else None
    except ValueError:
        return None


def with_default_class(tree: dict[str, Any]) -> dict[str, Any]:
    """The tree with the class `default`, when there is one, in each app that names none."""
    if DEFAULT_CLASS not in section(tree, "limits"):
        return tree
    apps = {
        name: {**app, "limits": DEFAULT_CLASS} if isinstance(app, dict) and app.get("limits") is None else app
        for name, app in section(tree, "apps").items()
    }
    return {**tree, "apps": apps} if apps else tree


def faults(tree: dict[str, Any]) -> Iterator[Fault]:
    """Everything that names something that is not there."""
    yield from _tls(tree)
    yield from _node(tree)
    yield from _apps(tree)
    yield from _limits(tree)
    yield from _clients(tree)


def _tls(tree: dict[str, Any]) -> Iterator[Fault]:
    if tree.get("tls") is not None:
        return
    for name, app in section(tree, "apps").items():
        if section({"": app}, "").get("plaintext", False) not in (True, "true"):
            yield Fault(
                ("tls",),
                f"missing; app '{shorten(str(name))}' needs tls: {{cert: FILE, key: FILE, client_ca: FILE}}",
            )
            return


def _node(tree: dict[str, Any]) -> Iterator[Fault]:
    yield from _class_of_limits(tree, ("node", "limits"), section(tree, "node").get("limits"))


def _apps(tree: dict[str, Any]) -> Iterator[Fault]:
    for name, app in section(tree, "apps").items():
        for key in ("limits", "app_limits"):
            yield from _class_of_limits(tree, ("apps", name, key), section({"": app}, "").get(key))
        if not _plaintext(tree, name):
            continue
        for key in ("tls", "alpn"):
            if app.get(key):
                yield Fault(("apps", name, key), "a plaintext app does not use it; remove it", at="key")


def _limits(tree: dict[str, Any]) -> Iterator[Fault]:
    for name, limits in section(tree, "limits").items():
        if not isinstance(limits, dict):
            continue
        at: Path = ("limits", name)
        if limits.get("burst") is not None and limits.get("rate") is None:
            yield Fault((*at, "burst"), "needs a rate beside it, such as rate: 50/s", at="key")
        elif _refill(limits) > REFILL_MAX:
            yield Fault((*at, "burst"), "this rate takes more than thirty years to refill it")
        if limits.get("mode") == "delay" and limits.get("max_wait") is None:
            yield Fault((*at, "mode"), "needs max_wait beside it, such as max_wait: 5s")
        elif limits.get("max_wait") is not None and limits.get("mode") in (None, "refuse", "shadow"):
            message = "nothing waits without mode: delay; write that, or remove this"
            yield Fault((*at, "max_wait"), message, at="key")
        if limits.get("replace_oldest") in (True, "true") and limits.get("concurrent") is None:
            message = "needs concurrent beside it, such as concurrent: 10"
            yield Fault((*at, "replace_oldest"), message, at="key")
        elif limits.get("replace_oldest") in (True, "true") and limits.get("mode") == "shadow":
            yield Fault((*at, "replace_oldest"), "a shadow limit ends nothing; remove one of them", at="key")


def _refill(limits: dict[str, Any]) -> float:
    """Seconds until a class's burst is full again; 0 when either is missing or wrong."""
    rate, burst = limits.get("rate"), limits.get("burst")
    try:
        rate = parse_rate(rate) if isinstance(rate, str) else rate
        return float(burst / rate) if burst and rate else 0.0
    except (TypeError, ValueError):
        return 0.0


def _clients(tree: dict[str, Any]) -> Iterator[Fault]:
    apps = section(tree, "apps")
    for name, client in section(tree, "clients").items():
        if not isinstance(client, dict):
            continue
        allowed = client.get("apps")
        if isinstance(allowed, list | tuple):
            for index, app in enumerate(allowed):
                if isinstance(app, str):
                    yield from _app(tree, ("clients", name, "apps", index), app, apps)
        for app, limits in section(client, "limits").items():
            path = ("clients", name, "limits", app)
            if app not in apps:
                yield _unknown(path, "app", str(app), apps, at_key=True)
            yield from _class_of_limits(tree, path, limits)


def _class_of_limits(tree: dict[str, Any], path: Path, name: object) -> Iterator[Fault]:
    classes = section(tree, "limits")
    if isinstance(name, str) and name not in classes:
        yield _unknown(path, "class of limits", name, classes)


def _app(tree: dict[str, Any], path: Path, app: str, apps: dict[str, Any]) -> Iterator[Fault]:
    if app not in apps:
        yield _unknown(path, "app", app, apps)
    elif _plaintext(tree, app):
        yield Fault(path, f"app '{shorten(app)}' is plaintext: nobody is identified there; remove it here")


def _plaintext(tree: dict[str, Any], app: str) -> bool:
    return section(section(tree, "apps"), app).get("plaintext") in (True, "true")


def _unknown(path: Path, what: str, name: str, known: dict[str, Any], *, at_key: bool = False) -> Fault:
    hint = did_you_mean(name, (str(key) for key in known)) or (
        f"; there is no {what} at all" if not known else ""
    )
    return Fault(path, f"unknown {what} '{shorten(name)}'{hint}", at="key" if at_key else "value")
