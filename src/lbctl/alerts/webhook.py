"""`alerts.webhook`: an alert is posted to a URL."""

from __future__ import annotations

from pathlib import Path

from lbctl.alerts.hook import NotDelivered
from lbctl.config.web_url import parse_webhook
from lbctl.endpoint import Endpoint, EndpointFailed
from lbctl.interrupt import Interrupt


class Webhook:
    """A server that takes alerts; any status of 2xx says that it has one.

    Args:
        url: where. It may hold a secret, so it is never logged.
        ca: the CA certificates its own must come from; None: those of the system.
        timeout: seconds for one alert.

    Raises:
        OSError: the CA certificates cannot be used.
    """

    name = "webhook"

    def __init__(self, url: str, ca: Path | None, timeout: float) -> None:
        parts = parse_webhook(url)
        self._target = parts.target
        self._endpoint = Endpoint(parts, ca=ca, cert=None, key=None, timeout=timeout)

    def deliver(self, alert: bytes, interrupt: Interrupt) -> None:
        """As `Hook.deliver`."""
        try:
            status = self._endpoint.post(self._target, alert, interrupt).status
        except EndpointFailed as error:
            raise NotDelivered(str(error)) from None
        if not 200 <= status < 300:
            redirect = ", and redirects are not followed" if 300 <= status < 400 else ""
            raise NotDelivered(f"HTTP status {status}{redirect}")
