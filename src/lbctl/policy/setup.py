"""The authorizer that a configuration asks for."""

from __future__ import annotations

from lbctl.config.model import Config
from lbctl.errors import LbctlError
from lbctl.policy.authorizer import Admitted, Authorizer
from lbctl.policy.deferred import Deferred
from lbctl.policy.http_store import HttpStore
from lbctl.policy.limiters import Limiters
from lbctl.policy.outage import Say
from lbctl.policy.rules import ConfigStore, Rules
from lbctl.policy.store import Chain, ClientStore


def make_authorizer(
    config: Config, rules: Rules, limiters: Limiters, say: Say, admitted: Admitted | None = None
) -> Authorizer | Deferred:
    """Whom the configuration lists it decides; else the client store, if it knows the serial; else the
    claims of the certificate; else the serial is unknown.

    Args:
        config: what is switched on.
        rules: of that configuration.
        limiters: of that configuration.
        say: where events of the client store go.
        admitted: hears of everybody who is let in.

    Raises:
        LbctlError: a certificate or key of the client store cannot be used.
    """
    stores: list[ClientStore] = [ConfigStore(rules)]
    if config.client_store is not None:
        try:
            stores.append(HttpStore(config.client_store, config, say))
        except OSError as error:
            raise LbctlError(f"client_store: cannot use ca, cert or key: {error.strerror or error}") from None
    if rules.claims is not None:
        stores.append(rules.claims)
    authorizer = Authorizer(rules, limiters, Chain(stores), admitted=admitted)
    if config.client_store is None:
        return authorizer
    return Deferred(authorizer, rules, config.authorize_timeout, say)
