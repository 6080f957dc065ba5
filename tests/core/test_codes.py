"""What a client sees is decided by the reason, as the table of reasons in the README promises it.

The one exception, a node that fills up during a handshake, is in tests/path/test_1_accept.py.
"""

from types import ModuleType

import pytest

import lbcore

# close: nothing was agreed yet; clean: close_notify, "come back later" or a normal end; reset: a permanent
# refusal or an abort, which must never look like a clean end.
ENDINGS = {
    "close": "node_full unauthenticated_full bad_proxy_header not_tls handshake_too_big tls_version"
    " handshake_failed handshake_timeout",
    "clean": "rate window concurrent app_full limit_wait no_upstream connect_failed upstream_tls"
    " client_closed upstream_closed",
    "reset": "client_gone no_certificate unknown_ca bad_certificate weak_key bad_serial wrong_issuer expired"
    " not_yet_valid revoked crl_expired wrong_purpose unknown_serial client_disabled client_blocked"
    " app_not_allowed authz_timeout authz_error client_reset upstream_reset upstream_truncated"
    " client_truncated idle half_close_timeout max_lifetime drained upstream_down kicked replaced"
    " revoked_while_open error",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_reason_ends_as_documented(probes: ModuleType, ending: str) -> None:
    for reason in ENDINGS[ending].split():
        assert probes.ending_of(reason) == ending, reason


def test_every_reason_is_in_the_table() -> None:
    assert sorted(" ".join(ENDINGS.values()).split()) == sorted(lbcore.REASONS[1:])
