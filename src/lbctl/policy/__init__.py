"""Who may use what, and how much of it.

    rules = Rules(config)
    engine.set_policy(rules.policy_clients())
    engine.listen(app, address, tls=tls, authorize=Authorizer(rules))

`Rules` reads a `Config` and is pure; `Authorizer` keeps the limiters, so counts outlive a question.
"""

from lbctl.policy.authorizer import Authorizer
from lbctl.policy.rules import Decision, Rules, policy_clients

__all__ = ["Authorizer", "Decision", "Rules", "policy_clients"]
