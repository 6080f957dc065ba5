"""The callable that decides who is let in."""

from __future__ import annotations

from lbcore import PeerCertificate, RateLimitManager, Verdict
from lbctl.policy.limiters import Limiters
from lbctl.policy.rules import Rules


class Authorizer:
    """Answers the engine by the rules of a configuration.

    Args:
        rules: what the configuration says.
        limiters: where it takes the limiters of clients from.

    Thread-safety: may be called from any thread.
    """

    def __init__(self, rules: Rules, limiters: Limiters) -> None:
        self._rules = rules
        self._limiters = limiters

    def __call__(self, peer: PeerCertificate, app: str) -> Verdict:
        decision = self._rules.judge(peer.serial, app)
        if decision.client is None or not decision.allow:
            return Verdict(allow=False, client=decision.client, reason=decision.reason)
        return Verdict(allow=True, client=decision.client, limits=self.limiter(decision.client, app))

    def limiter(self, client: str, app: str) -> RateLimitManager | None:
        """The limiter of a client in an app, always the same one; None without limits."""
        return self._limiters.client(client, app, self._rules.class_name(client, app))
