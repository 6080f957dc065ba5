"""A way in for clients that speak no TLS: HAProxy shakes hands for them, with a certificate of theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.servers import Server, free_port, require_server

if TYPE_CHECKING:
    from kit.pki import Identity, Pki

CONFIG = """
global
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    retries 0
listen tunnel
    bind 127.0.0.1:{port}
    server balancer 127.0.0.1:{target} ssl crt {pem} ca-file {ca} verify required verifyhost localhost
"""


def tunnel(pki: Pki, target: int, identity: Identity, folder: Path) -> Server:
    """Plaintext in, TLS with the identity's certificate out, to a balancer's port."""
    port = free_port()
    pem = folder / "tunnel.pem"
    pem.write_bytes(identity.cert.read_bytes() + identity.key.read_bytes())
    config = folder / "tunnel.cfg"
    config.write_text(CONFIG.format(port=port, target=target, pem=pem, ca=pki.ca.cert))
    return Server([require_server("haproxy"), "-db", "-f", str(config)], port, folder / "tunnel.log")
