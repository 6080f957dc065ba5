"""Who may use what, and how much of it.

    rules = Rules(config)
    engine.set_policy(rules.policy_clients())
    engine.listen(app, address, tls=tls, authorize=Authorizer(rules, Limiters(config)))

`Rules` reads a `Config` and is pure; `Limiters` keeps what was counted, so it outlives a question. Clients
that the configuration does not list are found by a `ClientStore`; `make_authorizer` puts together what the
configuration asks for.
"""

from lbctl.policy.authorizer import Authorizer
from lbctl.policy.certificate_claims import CertificateClaims
from lbctl.policy.deferred import Deferred
from lbctl.policy.http_store import HttpStore
from lbctl.policy.limiters import Key, Limiters
from lbctl.policy.rules import ConfigStore, Decision, Rules, policy_clients
from lbctl.policy.setup import make_authorizer
from lbctl.policy.store import Answer, Chain, ClientRecord, ClientStore, StoreUnavailable

__all__ = [
    "Answer",
    "Authorizer",
    "CertificateClaims",
    "Chain",
    "ClientRecord",
    "ClientStore",
    "ConfigStore",
    "Decision",
    "Deferred",
    "HttpStore",
    "Key",
    "Limiters",
    "Rules",
    "StoreUnavailable",
    "make_authorizer",
    "policy_clients",
]
