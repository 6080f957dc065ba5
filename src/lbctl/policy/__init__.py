"""Who may use what, and how much of it.

    rules = Rules(config)
    engine.set_policy(rules.policy_clients())
    engine.listen(app, address, tls=tls, authorize=Authorizer(rules, Limiters(config)))

`Rules` reads a `Config` and is pure; `Limiters` keeps what was counted, so it outlives a question.
"""

from lbctl.policy.authorizer import Authorizer
from lbctl.policy.limiters import Key, Limiters
from lbctl.policy.rules import Decision, Rules, policy_clients

__all__ = ["Authorizer", "Decision", "Key", "Limiters", "Rules", "policy_clients"]
