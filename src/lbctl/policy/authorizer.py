"""The callable that decides who is let in."""

from __future__ import annotations

import threading

from lbcore import PeerCertificate, RateLimitManager, Verdict
from lbctl.policy.rules import Rules


class Authorizer:
    """Answers the engine by the rules of a configuration.

    There is one limiter for each (client, app) that ever connected: made once and kept, so that all
    connections of a client count together. The configuration bounds their number.

    Thread-safety: may be called from any thread.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._limiters: dict[tuple[str, str], RateLimitManager | None] = {}
        self._lock = threading.Lock()

    def __call__(self, peer: PeerCertificate, app: str) -> Verdict:
        decision = self._rules.judge(peer.serial, app)
        if decision.client is None or not decision.allow:
            return Verdict(allow=False, client=decision.client, reason=decision.reason)
        return Verdict(allow=True, client=decision.client, limits=self.limiter(decision.client, app))

    def limiter(self, client: str, app: str) -> RateLimitManager | None:
        """The limiter of a client in an app, always the same one; None without limits."""
        with self._lock:
            if (client, app) not in self._limiters:
                self._limiters[client, app] = self._make(client, app)
            return self._limiters[client, app]

    def _make(self, client: str, app: str) -> RateLimitManager | None:
        limits = self._rules.limits(client, app)
        if limits is None:
            return None
        return RateLimitManager(
            f"{client}/{app}", max_open=limits.concurrent, rate=limits.rate, burst=limits.burst
        )
