"""Active health checks: whether upstreams answer, asked again and again.

    checker = Checker(on_result)
    checker.add(Target("orders-db", "10.0.1.11:5432", CheckSettings(interval=2.0)))
    checker.start()

`settings` says what is checked and how, `plan` turns that into what a check needs, `check` is one check,
`plain` and `encrypted` are what it talks through, `state` counts what came of it, `schedule` says when the
next one is due, and `checker` runs them all on one thread.
"""

from lbctl.health.checker import Checker
from lbctl.health.settings import CheckSettings, CheckTLS, Target
from lbctl.health.state import Result, RiseFall, State

__all__ = ["CheckSettings", "CheckTLS", "Checker", "Result", "RiseFall", "State", "Target"]
