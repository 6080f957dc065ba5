"""For each refusal: what the operator can do about it.

Pure: a record and the rules in, one sentence out.
"""

from __future__ import annotations

from lbcore import PeerCertificate, Record
from lbctl.config.faults import dotted
from lbctl.config.values import format_serial
from lbctl.logs.printable import printable
from lbctl.policy import Rules

_REISSUE = "give the client a new certificate of tls.client_ca (lbctl cert issue NAME)"
_FIXED = {
    "node_full": "raise node.max_connections and the file descriptor limit, or add a node",
    "unauthenticated_full": "find out who opens connections in vain, or raise node.max_unauthenticated and"
    " the file descriptor limit",
    "bad_proxy_header": "let the balancer in front send a PROXY header, version 1 or 2, or take its address"
    " off the list of those that have to",
    "not_tls": "let the client speak TLS 1.3, or a TLS tunnel beside it",
    "tls_version": "let the client offer TLS 1.3",
    "handshake_timeout": "raise tls.handshake_timeout if the client is merely slow",
    "no_certificate": "give the client a certificate of tls.client_ca, ECDSA or RSA (lbctl cert issue NAME)",
    "unknown_ca": "its certificate is of another CA; " + _REISSUE,
    "bad_certificate": "it is damaged, or its key is another one's; " + _REISSUE,
    "weak_key": "give the client a certificate with an ECDSA P-256 key or RSA of at least 2048 bits",
    "bad_serial": "issue it with a positive serial of at most 20 octets",
    "wrong_issuer": "issue it directly by the CA in tls.client_ca, not by one below it",
    "expired": "it is no longer valid, or this clock is wrong; " + _REISSUE,
    "not_yet_valid": "it is not valid yet: compare the clocks of this machine and of the CA",
    "revoked": "it is on a list in tls.crl; if the client may come back, " + _REISSUE,
    "crl_expired": "nobody gets in until tls.crl has a newer list (lbctl cert crl makes one) and a restart",
    "wrong_purpose": "issue it with extendedKeyUsage clientAuth",
    "authz_timeout": "raise authorize_timeout, or find out why the decision takes so long",
    "authz_error": "see the error of the authorizer or of the client store in the log",
}
_LIMIT_KEYS = {
    "rate": "rate or burst",
    "window": "window",
    "concurrent": "concurrent",
    "limit_wait": "max_wait, or what it waited for,",
}
_SHARED_BY = {"application": "all clients of the app", "global": "all clients of the node"}


def fix(record: Record, rules: Rules) -> str | None:
    """How to mend a refusal; None where there is nothing to configure."""
    client, app = record.client or "NAME", record.app
    match record.reason:
        case "unknown_serial" if record.serial is not None:
            return f'add "{format_serial(record.serial)}" under clients.NAME.serials' + _claims(record, rules)
        case "client_disabled" if not _visitor(record, rules):
            return f"remove disabled under {dotted(('clients', client))}"
        case "client_disabled":
            return "the client store says so"
        case "app_not_allowed" if not _visitor(record, rules):
            return f'add "{app}" under {dotted(("clients", client, "apps"))}'
        case "app_not_allowed":
            return f'add "{app}" to what it may use in the client store or its certificate'
        case "rate" | "window" | "concurrent" | "limit_wait":
            return _limit(record, rules)
        case "app_full":
            return "raise " + " or ".join(map(dotted, rules.caps(app)))
        case "no_upstream":
            return f"see that the servers in {dotted(('apps', app, 'upstreams'))} answer and have room"
        case "connect_failed":
            return f"see that {record.upstream or 'the upstream'} listens and can be reached from here"
        case "upstream_tls":
            server = record.upstream or "the upstream"
            return f"see what certificate {server} has, and {dotted(('apps', app, 'upstream_tls'))}"
    return _FIXED.get(record.reason)


def _visitor(record: Record, rules: Rules) -> bool:
    """Whether another one than the configuration knows the client."""
    if not rules.elsewhere or record.client is None:
        return False
    return record.serial is None or rules.record(record.serial) is None


def _claims(record: Record, rules: Rules) -> str:
    """What is wrong with the claims of a certificate, if that is why nobody knows it."""
    if not rules.claims or record.certificate is None or record.serial is None:
        return ""
    try:
        rules.claims.read(PeerCertificate(record.certificate, record.serial))
    except ValueError as error:
        return f"; its claims do not count: {printable(str(error))}"
    return ""


def _limit(record: Record, rules: Rules) -> str | None:
    if record.scope not in _SHARED_BY and _visitor(record, rules):
        return f"raise {_LIMIT_KEYS[record.reason]} in its class of limits, or let the client slow down"
    name = rules.class_of_scope(record.scope, record.client, record.app)
    if name is None:
        return None
    keys, at = _LIMIT_KEYS[record.reason], dotted(("limits", name))
    if record.scope in _SHARED_BY:
        return f"raise {keys} in {at}, which {_SHARED_BY[record.scope]} share, or let them slow down"
    return f"raise {keys} in {at}, or let the client slow down"
