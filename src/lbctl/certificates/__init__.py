"""Making and reading certificates: a small CA, the demo's set, and what a certificate says.

    demo = demo_certificates(Path("certs"))
    demo.alice.serial

    create_ca(Path("pki"))
    issue(Path("pki"), "billing-api", Purpose.CLIENT).cert

Functions keep no state and may be called from any thread. A file that is there is never overwritten;
only the demo issues its own certificates again when they end.
"""

from lbctl.certificates.authority import Authority, Purpose
from lbctl.certificates.demo import DemoCertificates, DemoClient, demo_certificates
from lbctl.certificates.describe import Description, describe
from lbctl.certificates.folder import (
    CA_DAYS,
    CA_NAME,
    LEAF_DAYS,
    Issued,
    Listed,
    create_ca,
    has_ca,
    issue,
    list_certificates,
    read_ca,
)
from lbctl.certificates.revocation import CRL_DAYS, RevocationList, renew, revoke, revoked_serials
from lbctl.certificates.starter import Starter, StarterClient, starter

__all__ = [
    "CA_DAYS",
    "CA_NAME",
    "CRL_DAYS",
    "LEAF_DAYS",
    "Authority",
    "DemoCertificates",
    "DemoClient",
    "Description",
    "Issued",
    "Listed",
    "Purpose",
    "RevocationList",
    "Starter",
    "StarterClient",
    "create_ca",
    "demo_certificates",
    "describe",
    "has_ca",
    "issue",
    "list_certificates",
    "read_ca",
    "renew",
    "revoke",
    "revoked_serials",
    "starter",
]
