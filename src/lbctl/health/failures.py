"""How a check ends that does not pass, and the words for it.

Nothing an upstream sends gets into a message but by `shown`.
"""

from __future__ import annotations

import errno
import os
import re
import ssl

SHOWN_MAX = 40  # bytes
#: What is lacking here says nothing about an upstream; the data plane holds the same ones against nobody.
_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EPERM})
_WORDS = {
    errno.EAGAIN: "its queue of connections is full",  # only of a unix socket (connect(2))
    errno.ECONNREFUSED: "connection refused",
    errno.ECONNRESET: "connection reset",
    errno.EPIPE: "connection closed",
    errno.ENOENT: "there is no such socket",
}
_NO_TLS13 = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"})


class CheckFailed(Exception):
    """The upstream has failed a check; the text says how."""


class Unjudged(Exception):
    """A check has told nothing about the upstream; the text says what was in the way."""


def of_system(error: OSError) -> CheckFailed | Unjudged:
    """What an error of a socket means."""
    code = error.errno or 0
    if code in _OURS:
        return Unjudged(os.strerror(code))
    return CheckFailed(_WORDS.get(code) or os.strerror(code).lower())


def of_tls(error: ssl.SSLError) -> CheckFailed:
    """What an error of TLS means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return CheckFailed(f"certificate verify failed: {error.verify_message}")
    reason = error.reason or type(error).__name__
    if reason in _NO_TLS13:
        return CheckFailed("it does not speak TLS 1.3")
    alert = re.search(r"_ALERT_(\w+)", reason)
    if alert is not None:
        return CheckFailed(f"TLS alert: {_words(alert[1])}")
    return CheckFailed(f"TLS error: {_words(reason)}")


def _words(name: str) -> str:
    return name.replace("_", " ").lower()


def of_answer(answer: bytes, expected: bytes) -> CheckFailed:
    """The answer differs from what was expected; what both have in common is left out when it is long."""
    pairs = enumerate(zip(answer, expected, strict=False))
    same = next(place for place, (found, wanted) in pairs if found != wanted)
    if same < SHOWN_MAX:
        return CheckFailed(f"the answer begins with {shown(answer)}, not with {shown(expected)}")
    after, wrong, right = f"after {same} bytes", shown(answer[same:]), shown(expected[same:])
    return CheckFailed(f"the answer goes on with {wrong} {after}, not with {right}")


def of_end(answer: bytes) -> CheckFailed:
    """The answer ended too early."""
    if not answer:
        return CheckFailed("it closed the connection without an answer")
    return CheckFailed(f"it closed the connection after the answer {shown(answer)}")


def shown(data: bytes) -> str:
    """Bytes of whatever origin as ASCII for one line, shortened."""
    return repr(data[:SHOWN_MAX]) + ("…" if len(data) > SHOWN_MAX else "")
