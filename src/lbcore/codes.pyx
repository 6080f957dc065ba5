"""Stages and reasons as the words that operators see.

The order is the enums' order in codes.pxd; a test compares the two.
"""

STAGES = (
    "", "accept", "handshake", "authenticate", "authorize", "limit", "pick", "dial", "forward", "close",
)

REASONS = (
    "",
    "node_full", "unauthenticated_full",
    "bad_proxy_header", "not_tls", "handshake_too_big", "tls_version", "handshake_failed",
    "handshake_timeout",
    "client_gone",
    "no_certificate", "unknown_ca", "bad_certificate", "weak_key", "bad_serial", "wrong_issuer",
    "expired", "not_yet_valid", "revoked", "crl_expired", "wrong_purpose",
    "unknown_serial", "client_disabled", "client_blocked", "app_not_allowed",
    "authz_timeout", "authz_error",
    "rate", "window", "concurrent", "app_full", "limit_wait",
    "no_upstream", "connect_failed", "upstream_tls",
    "client_closed", "upstream_closed",
    "client_reset", "upstream_reset", "upstream_truncated", "client_truncated",
    "idle", "half_close_timeout", "max_lifetime", "drained", "upstream_down", "kicked",
    "replaced", "revoked_while_open", "error",
)

#: What an authorizer may answer a refusal with.
AUTHORIZE_REASONS = frozenset(("unknown_serial", "client_disabled", "client_blocked", "app_not_allowed"))

if len(STAGES) != STAGES_END or len(REASONS) != REASONS_END:
    raise ImportError("lbcore.codes: the names do not match the enums")
