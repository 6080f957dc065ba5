"""The text of a first configuration."""

from __future__ import annotations

from lbctl.certificates import Starter, StarterClient
from lbctl.cli.stanza import serials, yaml_key, yaml_path

LISTEN = "127.0.0.1:8443"

_TEXT = """\
# yaml-language-server: $schema=./lb.schema.json
#
# The configuration of lbctl: `lbctl check` validates it, `lbctl run` starts it.
# Paths are relative to this file; durations and rates carry a unit; serials are quoted.
#
# To make it yours, change the lines marked (1), (2), (3).
version: 1

node:
  # name: lb-1                   # default: the host's name
  # workers: auto                # data-plane threads; auto = one per usable CPU
  drain_timeout: 30s             # on SIGTERM or Ctrl-C: wait this long for open connections

tls:                             # TLS 1.3 with client certificates; neither can be switched off
  cert: {cert}
  key: {key}
  client_ca: certs/ca.pem        # the one CA whose clients are believed
{expiry}
limits:                          # counted per client and app; the class `default` applies to every app
  default: {{rate: 20/s, burst: 40, concurrent: 10}}
  # also: window: 20/10s, bandwidth_in: 10Mbit/s, bandwidth_out: 1MiB/s, max_lifetime: 12h,
  # and what happens above rate, window or concurrent: mode: refuse, shadow, or delay with max_wait: 5s

apps:
  hello:
    listen: {listen}       # (1) where clients connect; "[::]:8443" = every address, both families
    upstreams:                   # (2) your servers; these two are placeholders (only the demo has its own)
      - {{address: "127.0.0.1:19001"}}   # to try it: python3 -m http.server 19001 --bind 127.0.0.1
      - {{address: "127.0.0.1:19002", weight: 1}}
    idle_timeout: 30m

# (3) Who may use what, by certificate serial. Whoever is not listed here is refused.
# One more client: `lbctl cert issue NAME` makes its certificate and prints the lines to add.
{clients}"""

_DEMO_EXPIRY = """\
  expiry_warning: [1d]           # the demo's certificates last 7 days. For ones that stay, in another
                                 # folder: lbctl cert init DIR, lbctl cert issue NAME --dir DIR
"""


def first_config(starter: Starter) -> str:
    """A commented configuration for one app that uses the certificates in ./certs."""
    clients = "".join(map(_client, starter.clients))
    return _TEXT.format(
        cert=yaml_path(f"certs/{starter.server}.pem"),
        key=yaml_path(f"certs/{starter.server}.key"),
        expiry=_DEMO_EXPIRY if starter.is_demo else "",
        listen=LISTEN,
        clients=f"clients:\n{clients}" if clients else "clients: {}\n",
    )


def _client(client: StarterClient) -> str:
    if client.admitted:
        access = "    apps: [hello]\n"
    else:
        access = "    disabled: true   # known, and refused; to let it in: apps: [hello] instead\n"
    return f"  {yaml_key(client.name)}:\n    serials: {serials(client.serial)}\n{access}"
