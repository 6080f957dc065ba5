"""The callable that decides who is let in."""

from __future__ import annotations

from collections.abc import Callable

from lbcore import PeerCertificate, RateLimitManager, Undecided, Verdict
from lbctl.policy.limiters import Limiters
from lbctl.policy.rules import ConfigStore, Rules
from lbctl.policy.store import ClientRecord, ClientStore, StoreUnavailable

Admitted = Callable[[str, PeerCertificate], None]


class Authorizer:
    """Answers the engine by the rules of a configuration.

    Args:
        rules: what the configuration says.
        limiters: where it takes the limiters of clients from.
        store: where clients are known; the configuration alone by default.
        admitted: hears of everybody who is let in: the client's name, and what was shown.

    Thread-safety: may be called from any thread. It blocks as long as the store does.
    """

    def __init__(
        self,
        rules: Rules,
        limiters: Limiters,
        store: ClientStore | None = None,
        *,
        admitted: Admitted | None = None,
    ) -> None:
        self._rules = rules
        self._admitted = admitted
        self._limiters = limiters
        self._store = store if store is not None else ConfigStore(rules)

    def __call__(self, peer: PeerCertificate, app: str) -> Verdict:
        """The verdict; it holds no longer than what the store said.

        Raises:
            Undecided: the store cannot tell.
        """
        try:
            answer = self._store.find(peer)
        except StoreUnavailable as error:
            raise Undecided(str(error)) from None
        record = answer.record
        decision = self._rules.decide(record, app)
        if record is None or not decision.allow:
            return Verdict(allow=False, client=decision.client, reason=decision.reason, ttl=answer.ttl)
        limits = self._limiter(record, app)
        if self._admitted is not None:
            self._admitted(record.name, peer)
        return Verdict(allow=True, client=decision.client, limits=limits, ttl=answer.ttl)

    def _limiter(self, record: ClientRecord, app: str) -> RateLimitManager | None:
        name = self._rules.class_for(record, app)
        if record.source == "configuration":
            return self._limiters.client(record.name, app, name)
        return self._limiters.visitor(record.name, app, name)
