"""Clients that an HTTPS endpoint knows (`client_store`).

    GET https://clients.internal/v1/serials/4F3A910C7712A05E
    200 {"client": "billing-api", "apps": ["orders-db"], "limits": {"orders-db": "batch"}, "disabled": false}
    404 nobody has this serial

An answer is remembered for `ttl`, that a serial is unknown for `negative_ttl`. What is asked several times
at once is asked once. Failing is kept apart from knowing nothing:

* A serial whose question failed is not asked about again for a moment.
* After some failures in a row, of whichever serials, the store counts as down and is asked about one
  serial at a time with pauses between, until it answers.
* Meanwhile `on_failure` decides: refuse, or take the last good answer while it is younger than `max_stale`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass

from lbcore import PeerCertificate
from lbctl.config.model import ClientStore as Settings
from lbctl.config.model import Config
from lbctl.config.store_url import parse_store_url
from lbctl.endpoint import Endpoint, EndpointFailed, Response
from lbctl.policy.outage import Outage, Say
from lbctl.policy.store import Answer, ClientRecord, StoreUnavailable
from lbctl.policy.store_answer import read_answer

REMEMBERED_MAX = 65536  # serials
MOMENT = 1.0  # seconds before a failed question is put again, and that a stale answer holds
UNKNOWN, FOUND = 404, 200
_OVERLOADED = frozenset({429, 502, 503, 504})  # the store as a whole, whoever was asked about

#: Puts one question: the serial's digits in, the answer out. Raises EndpointFailed.
Ask = Callable[[str], Response]


@dataclass(slots=True)
class _Known:
    """What is remembered of one serial.

    Attributes:
        until: when it has to be asked again.
        record: the last good answer.
        answered: when that came; None: never.
        failed: whether the last question failed.
    """

    until: float
    record: ClientRecord | None = None
    answered: float | None = None
    failed: bool = False


class HttpStore:
    """A `ClientStore` behind HTTPS.

    Args:
        settings: the section `client_store`.
        config: its apps and classes of limits.
        say: how the operator hears of it: when it begins to fail and when it is back, not for each question.
        ask: instead of the endpoint of the settings.
        clock: monotonic seconds.
        remembered_max: serials remembered; the one that was asked for least lately goes first.

    Thread-safety: may be called from many threads at once; each waits for `timeout` at most.

    Raises:
        OSError: a certificate or key of the settings cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        config: Config,
        say: Say,
        *,
        ask: Ask | None = None,
        clock: Callable[[], float] = time.monotonic,
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        self._settings = settings
        self._apps, self._classes = frozenset(config.apps), frozenset(config.limits)
        self._ask = ask if ask is not None else _endpoint(settings)
        self._clock = clock
        self._outage = Outage(settings.url, say, clock)
        self._known: OrderedDict[int, _Known] = OrderedDict()
        self._remembered_max = remembered_max
        self._asking: dict[int, Future[Answer]] = {}
        self._lock = threading.Lock()

    def find(self, peer: PeerCertificate) -> Answer:
        """As `ClientStore.find`."""
        with self._lock:
            answer = self._remembered(peer.serial)
            if answer is not None:
                return answer
            others = self._asking.get(peer.serial)
            if others is None:
                if not self._outage.may_ask():
                    return self._instead(peer.serial)
                ours = self._asking[peer.serial] = Future()
        if others is not None:
            return self._wait(others)
        try:
            answer = self._find(peer)
        except BaseException as error:
            self._done(peer.serial)
            ours.set_exception(error)
            raise
        self._done(peer.serial)
        ours.set_result(answer)
        return answer

    # ---- asking

    def _wait(self, asked: Future[Answer]) -> Answer:
        """The answer to a question that somebody else has put."""
        try:
            return asked.result(self._settings.timeout)
        except FutureTimeout:
            raise StoreUnavailable("the client store does not answer") from None

    def _done(self, serial: int) -> None:
        with self._lock:
            del self._asking[serial]

    def _find(self, peer: PeerCertificate) -> Answer:
        """Asks, and remembers what came of it."""
        try:
            response = self._ask(peer.serial_hex)
            if response.status in _OVERLOADED:
                raise EndpointFailed(f"HTTP status {response.status}")
        except EndpointFailed as error:
            return self._failed(peer, str(error), down=True)
        except BaseException:
            self._note_failure(peer, "an error of this program", down=True)
            raise
        self._outage.over()
        if response.status not in (FOUND, UNKNOWN):
            redirect = ", and redirects are not followed" if 300 <= response.status < 400 else ""
            return self._failed(peer, f"HTTP status {response.status}{redirect}", down=False)
        try:
            record = None
            if response.status == FOUND:
                record = read_answer(response.body, self._apps, self._classes)
        except ValueError as error:
            return self._failed(peer, f"wrong answer: {error}", down=False)
        return self._answered(peer.serial, record)

    def _answered(self, serial: int, record: ClientRecord | None) -> Answer:
        ttl = self._settings.negative_ttl if record is None else self._settings.ttl
        now = self._clock()
        with self._lock:
            self._remember(serial, _Known(now + ttl, record, now))
        return Answer(record, ttl)

    def _failed(self, peer: PeerCertificate, problem: str, *, down: bool) -> Answer:
        """What holds after a question that failed.

        Raises:
            StoreUnavailable: nothing.
        """
        self._note_failure(peer, problem, down=down)
        with self._lock:
            return self._instead(peer.serial)

    def _note_failure(self, peer: PeerCertificate, problem: str, *, down: bool) -> None:
        self._outage.failed(problem, peer.serial_hex, down=down)
        with self._lock:
            known = self._known.get(peer.serial, _Known(0.0))
            known.failed, known.until = True, self._clock() + MOMENT
            self._remember(peer.serial, known)

    # ---- remembering; called with the lock held

    def _remembered(self, serial: int) -> Answer | None:
        """What holds without asking; None: ask."""
        known = self._known.get(serial)
        if known is None:
            return None
        self._known.move_to_end(serial)
        left = known.until - self._clock()
        if left <= 0:
            return None
        return self._instead(serial) if known.failed else Answer(known.record, left)

    def _instead(self, serial: int) -> Answer:
        """What holds while the store does not answer.

        Raises:
            StoreUnavailable: nothing.
        """
        known = self._known.get(serial)
        if self._settings.on_failure == "stale" and known is not None and known.answered is not None:
            left = known.answered + self._settings.max_stale - self._clock()
            if left > 0:
                return Answer(known.record, min(left, MOMENT))
        raise StoreUnavailable("the client store does not answer")

    def _remember(self, serial: int, known: _Known) -> None:
        self._known[serial] = known
        self._known.move_to_end(serial)
        if len(self._known) > self._remembered_max:
            self._known.popitem(last=False)


def _endpoint(settings: Settings) -> Ask:
    url = parse_store_url(settings.url)
    endpoint = Endpoint(url, ca=settings.ca, cert=settings.cert, key=settings.key, timeout=settings.timeout)
    return lambda digits: endpoint.get(url.for_serial(digits))
