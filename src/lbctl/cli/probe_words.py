"""What a probe saw, in words."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lbctl.cli.probing import Outcome, Probed
from lbctl.config.values import shorten

_ALERTS = {
    "certificate required": "it wants a client certificate; give --cert and --key",
    "decrypt error": "a signature is wrong: this certificate is of another CA of that name",
    "unknown ca": "it does not trust the CA that issued this certificate",
    "bad certificate": "it does not know this certificate, or the client is disabled",
    "unsupported certificate": "this certificate is not meant for clients",
    "certificate expired": "this certificate has expired, or is not valid yet",
    "certificate revoked": "this certificate was revoked",
    "certificate unknown": "it does not accept this certificate",
    "handshake failure": "this certificate may not use this app",
    "access denied": "this certificate may not use this app",
}


@dataclass(frozen=True)
class Question:
    """What was probed, and how.

    Attributes:
        host, port: of the server.
        has_cert: whether a client certificate was at hand.
        ca: the CA the server must have; None for the system's.
        timeout: seconds for connection and handshake.
        wait: seconds for the judgement.
    """

    host: str
    port: int
    has_cert: bool
    ca: Path | None
    timeout: float
    wait: float


def in_words(question: Question, probed: Probed) -> str:
    """One sentence."""
    host = shorten(question.host)
    where = f"[{host}]:{question.port}" if ":" in host else f"{host}:{question.port}"
    session = f"{probed.tls}, {probed.cipher}"
    match probed.outcome:
        case Outcome.ADMITTED if probed.received:
            return f"admitted: {session}; the server spoke first ({probed.received} bytes)"
        case Outcome.ADMITTED:
            return f"admitted: {session}; the server kept the connection for {question.wait:g} s"
        case Outcome.NOT_ASKED:
            return (
                f"connected ({session}), but the server asked for no client certificate: "
                "this is not mutual TLS, and it says nothing about this client"
            )
        case Outcome.REFUSED:
            return _refused(probed, question.has_cert)
        case Outcome.TURNED_AWAY:
            return (
                "turned away for now: the server ended the connection cleanly right after the handshake; "
                "a limit is reached, or no upstream is up (or the service itself hung up); try again later"
            )
        case Outcome.CUT:
            return "cut off after the handshake, without a TLS end: by the server, or by something in between"
        case Outcome.CLOSED_EARLY:
            return (
                f"{where} closed the connection before the handshake was over: "
                "it is full, or this is no TLS server"
            )
        case Outcome.UNTRUSTED:
            return f"the server is not to be trusted, {_judge(question.ca)}: {shorten(probed.detail, 200)}"
        case Outcome.NO_TLS13:
            return f"{where} does not speak TLS 1.3"
        case Outcome.NOT_TLS:
            return f"{where} answers, but not with TLS"
        case Outcome.HANDSHAKE_FAILED:
            return f"the handshake with {where} failed: {shorten(probed.detail, 200)}"
        case Outcome.CONNECTION_REFUSED:
            return f"cannot reach {where}: connection refused; nothing listens there"
        case Outcome.UNREACHABLE:
            return f"cannot reach {where}: {shorten(probed.detail, 200)}"
        case Outcome.TIMEOUT if probed.peer is None:
            return f"cannot reach {where}: no answer within {question.timeout:g} s"
        case Outcome.TIMEOUT:
            return f"{where} accepted, but the handshake was not over within {question.timeout:g} s"


def _judge(ca: Path | None) -> str:
    if ca is None:
        return "by the CAs of this system (name another with --ca)"
    return f"by {shorten(str(ca), 200)}"


def _refused(probed: Probed, has_cert: bool) -> str:
    after = "after the handshake" if probed.tls is not None else "during the handshake"
    if probed.certificate_asked and not has_cert:
        why = _ALERTS["certificate required"]
    elif probed.detail == "reset":
        why = "this certificate may not use this app now (ask the operator for the log line)"
    else:
        why = f"{_ALERTS.get(probed.detail, 'it does not say why')} (alert: {shorten(probed.detail)})"
    return f"refused by the server {after}: {why}"
