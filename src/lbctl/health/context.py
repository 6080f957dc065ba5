"""The files of a check that speaks TLS."""

from __future__ import annotations

import ssl
import threading
import weakref
from pathlib import Path

from lbctl.health.settings import CheckTLS


class Contexts:
    """One SSLContext for all that have the same settings, for as long as somebody uses it.

    Thread-safety: may be used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: weakref.WeakValueDictionary[CheckTLS, ssl.SSLContext] = weakref.WeakValueDictionary()

    def get(self, tls: CheckTLS) -> ssl.SSLContext:
        """The context of these settings.

        Raises:
            OSError, ValueError: as `make_context`.
        """
        with self._lock:
            context = self._made.get(tls)
            if context is None:
                context = self._made[tls] = make_context(tls)
            return context


def make_context(tls: CheckTLS) -> ssl.SSLContext:
    """A client's context that verifies the certificate and its name, TLS 1.3 only.

    Raises:
        OSError: a file cannot be read; `filename` says which.
        ValueError: a file is not what it should be; the text names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Whatever was named is trusted, be it a root or not: as connections of the data plane hold it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    _check_readable(tls.ca)
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise ValueError(f"{tls.ca}: no CA certificates ({error.reason})") from None
    if tls.cert is not None and tls.key is not None:
        _check_readable(tls.cert)
        _check_readable(tls.key)
        try:
            # The empty password: without one OpenSSL would ask the terminal.
            context.load_cert_chain(tls.cert, tls.key, password="")
        except ssl.SSLError as error:
            raise ValueError(f"{tls.cert}, {tls.key}: no certificate and its key ({error.reason})") from None
    return context


def _check_readable(path: Path) -> None:
    """OpenSSL's errors do not name the file."""
    with path.open("rb"):
        pass
