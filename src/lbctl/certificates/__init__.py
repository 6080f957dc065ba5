"""Making and reading certificates: a small CA, the demo's set, and what a certificate says.

    demo = demo_certificates(Path("certs"))
    demo.alice.serial

Functions keep no state and may be called from any thread; files are never overwritten.
"""

from lbctl.certificates.demo import DemoCertificates, DemoClient, demo_certificates

__all__ = ["DemoCertificates", "DemoClient", "demo_certificates"]
