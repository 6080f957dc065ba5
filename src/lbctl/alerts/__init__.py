"""Telling somebody at once what the log says: upstreams that fail and recover, certificates that end.

    alerts = Alerts(config.alerts, config.node.name, journal.event)
    alerts.start()
    alerts.alert("app_down", ("db",), "all upstreams are down", app="db")
    alerts.close()

What is said is one JSON object for each alert, to a program (`command.py`) or a webhook (`webhook.py`). Of
alerts that repeat each other one is delivered, and of those that contradict each other the last (`once.py`).
`ExpiryWatch` says when a certificate's end is near enough for one.
"""

from lbctl.alerts.alerts import Alerts
from lbctl.alerts.expiry import Expiry, ExpiryWatch
from lbctl.alerts.kinds import KINDS, Kind

__all__ = ["KINDS", "Alerts", "Expiry", "ExpiryWatch", "Kind"]
