"""Clients that are known by what the CA wrote into their certificates (`certificate_claims: true`)."""

from __future__ import annotations

from lbcore import PeerCertificate
from lbctl.certificates.claims import read_claims
from lbctl.config.model import Config
from lbctl.policy.store import Answer, ClientRecord


class CertificateClaims:
    """A `ClientStore` that believes certificates; the lowest authority of all.

    Whoever gets a certificate with such names out of the CA is let in, so it is switched on only where
    the CA writes them itself and never copies them from a request. It never blocks and never fails: of a
    certificate that cannot be read, or whose claims are wrong, nothing is believed.

    Args:
        config: its apps and classes of limits; claims to other apps are ignored.

    Thread-safety: may be called from any thread.
    """

    def __init__(self, config: Config) -> None:
        self._apps = frozenset(config.apps)
        self._classes = frozenset(config.limits)

    def find(self, peer: PeerCertificate) -> Answer:
        """As `ClientStore.find`; a certificate never changes, so it holds until the configuration does."""
        try:
            return Answer(self.read(peer))
        except ValueError:
            return Answer(None)

    def read(self, peer: PeerCertificate) -> ClientRecord | None:
        """What the certificate claims; None when it claims nothing.

        Raises:
            ValueError: nothing of it can be believed; the text says why.
        """
        claims = read_claims(value for kind, value in peer.alternative_names if kind == "uri")
        if claims is None:
            return None
        apps = {app: limits for app, limits in claims.apps.items() if app in self._apps}
        classes = {app: limits for app, limits in apps.items() if limits is not None}
        for limits in classes.values():
            if limits not in self._classes:
                raise ValueError(f"unknown class of limits '{limits}'")
        return ClientRecord(claims.client, frozenset(apps), classes, source="certificate")
