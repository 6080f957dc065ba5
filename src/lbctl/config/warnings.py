"""What is allowed and probably not meant; `check --strict` turns it into a failure."""

from __future__ import annotations

from collections.abc import Iterator

from lbctl.config.faults import Fault
from lbctl.config.model import Client, Config, LimitClass
from lbctl.config.references import DEFAULT_CLASS
from lbctl.config.values import shorten


def faults(config: Config) -> Iterator[Fault]:
    """Every oddity of a valid configuration."""
    yield from _apps_without_clients(config)
    yield from _unused_classes(config)
    for name, client in config.clients.items():
        yield from _client(name, client)


def _apps_without_clients(config: Config) -> Iterator[Fault]:
    if config.client_store is not None or config.certificate_claims:
        return  # whoever may use it is known elsewhere
    used = {app for client in config.clients.values() if not client.disabled for app in client.apps}
    for name, app in config.apps.items():
        if not app.plaintext and name not in used:
            yield Fault(("apps", name), "no client may use it; name it under clients.NAME.apps", at="key")


def _unused_classes(config: Config) -> Iterator[Fault]:
    elsewhere = config.client_store is not None or config.certificate_claims  # they name classes as well
    used = {config.node.limits}
    used.update(name for app in config.apps.values() for name in (app.limits, app.app_limits))
    used.update(limits for client in config.clients.values() for limits in client.limits.values())
    for name, limits in config.limits.items():
        if name not in used and name != DEFAULT_CLASS and not elsewhere:
            yield Fault(("limits", name), "no app and no client uses this class", at="key")
        if limits.empty:
            yield Fault(("limits", name), "limits nothing; write rate or concurrent", at="key")
        else:
            yield from _idle_modes(name, limits)


def _idle_modes(name: str, limits: LimitClass) -> Iterator[Fault]:
    """Bandwidth and lifetime never refuse, so there is nothing to put off or to note."""
    if limits.mode == "shadow":
        for key in ("bandwidth_in", "bandwidth_out", "max_lifetime"):
            if getattr(limits, key) is not None:
                yield Fault(("limits", name, key), "does nothing with mode: shadow", at="key")
    elif limits.mode == "delay" and (limits.rate, limits.window, limits.concurrent) == (None, None, None):
        message = "there is nothing to wait for; write rate, window or concurrent"
        yield Fault(("limits", name, "mode"), message)


def _client(name: str, client: Client) -> Iterator[Fault]:
    if not client.apps and not client.disabled:
        yield Fault(("clients", name), "may use nothing; list its apps, or write disabled: true", at="key")
    seen: set[str] = set()
    for index, app in enumerate(client.apps):
        if app in seen:
            yield Fault(("clients", name, "apps", index), f"'{shorten(app)}' is listed twice")
        seen.add(app)
    for app in client.limits:
        if app not in client.apps:
            message = f"the client may not use '{shorten(app)}', so this limits nothing"
            yield Fault(("clients", name, "limits", app), message, at="key")
