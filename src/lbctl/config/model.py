"""The configuration as the rest of the program sees it: frozen, complete, consistent.

Durations are seconds, rates are per second, shares are fractions of one, serials are integers,
paths are absolute, addresses are canonical ``host:port`` text with an IP literal. Instances are
immutable: safe to share between threads.

``Config.model_validate({...})`` applies every rule a file must obey and raises
``pydantic.ValidationError``; ``lbctl.config.build`` does the same and raises ``ConfigInvalid``.
In Python a duration may be a number of seconds and a serial an integer, and relative paths start
from the current directory.
"""

from __future__ import annotations

import socket
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ModelWrapValidatorHandler, model_validator

from lbctl.config import rules
from lbctl.config.fields import (
    Alpn,
    Attempts,
    AutoCount,
    Bandwidth,
    Bytes,
    Command,
    Count,
    Duration,
    DurationOrZero,
    FilePath,
    FilePaths,
    Flag,
    HostName,
    Keepalive,
    ListenAddress,
    Name,
    NameServer,
    Network,
    Port,
    Rate,
    Sample,
    Serial,
    ServiceName,
    Share,
    StoreUrl,
    UpstreamAddress,
    VerifyName,
    Version,
    WebhookUrl,
    Weight,
    Window,
    at_least_one,
)

#: The keys of a class of limits that limit something by themselves.
LIMITS = ("rate", "concurrent", "window", "bandwidth_in", "bandwidth_out", "max_lifetime")


class Section(BaseModel):
    """A mapping of the configuration file: unknown keys are errors, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Node(Section):
    """This process."""

    name: Name = Field(default_factory=socket.gethostname)
    """Shown in logs and on the status page; the host's name by default."""
    workers: AutoCount = None
    """Data-plane threads; auto = one per usable CPU."""
    max_connections: Count | None = None
    """Refuses above this; derived from the file descriptor limit by default."""
    max_unauthenticated: Count = 4096
    """TLS sockets that were not let in, or not yet; the oldest goes for a newcomer."""
    drain_timeout: DurationOrZero = 30.0
    """How long a stop waits for open connections."""
    limits: str | None = None
    """A class of limits for all connections together."""
    limits_file: FilePath | None = None
    """Where buckets and windows are kept, so that they survive a restart; nowhere by default."""
    name_servers: tuple[NameServer, ...] = ()
    """Who is asked for the names of upstreams: IP addresses, with a port if it is not 53; by default those of
    /etc/resolv.conf."""


class Tls(Section):
    """Mutual TLS 1.3; neither the version nor the client certificate can be switched off."""

    engine: Literal["auto", "s2n", "openssl"] = "auto"
    """The TLS library; auto = s2n. openssl: exact alerts, Ed25519 clients; where it was compiled."""
    cert: FilePath
    """The server's certificate chain, PEM, leaf first."""
    key: FilePath
    """The server's private key, PEM; refused when group or world readable."""
    client_ca: FilePath
    """The one CA certificate that issues client certificates, PEM."""
    crl: FilePaths = ()
    """Revocation lists of client_ca, PEM: a file or a list of files. One that has ended refuses everybody."""
    handshake_timeout: Duration = 5.0
    """From accept to a finished handshake."""
    expiry_warning: tuple[Duration, ...] = (30 * 86400.0, 7 * 86400.0, 86400.0)
    """How long before a certificate ends to warn."""


class Access(Section):
    """One record per connection and per refusal."""

    file: FilePath | None = None
    """Where the records go; stderr by default."""
    sample: Sample = 1.0
    """The share of finished connections that is recorded; refusals are never sampled."""


class Logging(Section):
    """Events and records."""

    events: Literal["auto", "pretty", "json"] = "auto"
    """auto = pretty on a terminal, JSON otherwise."""
    access: Access = Access()
    max_denied_per_second: Count = 50
    """Per client and reason; the rest is summed into one line."""


class LimitClass(Section):
    """A named class of limits, counted per client and app, per app or for the node, by who names it."""

    rate: Rate | None = None
    """New connections: refilled at this rate."""
    burst: Count | None = None
    """New connections at once, before the rate counts."""
    window: Window | None = None
    """New connections: never more than so many in any period of that length."""
    concurrent: Count | None = None
    """Open connections at once."""
    replace_oldest: Flag = False
    """At `concurrent`, a new connection ends the oldest one instead of being refused."""
    bandwidth_in: Bandwidth | None = None
    """Bytes from clients, all connections together; they are slowed down, never cut."""
    bandwidth_out: Bandwidth | None = None
    """Bytes to clients, all connections together."""
    max_lifetime: Duration | None = None
    """How long a connection may last."""
    mode: Literal["refuse", "delay", "shadow"] = "refuse"
    """A connection above the limits: refuse it, let it wait for max_wait, or only log it."""
    max_wait: Duration | None = None
    """How long `mode: delay` lets a connection wait; then it is refused."""

    @property
    def empty(self) -> bool:
        """Whether it limits nothing."""
        return all(getattr(self, name) is None for name in LIMITS)


class Upstream(Section):
    """One server behind an app, or all that a name stands for: one of address, dns and srv."""

    address: UpstreamAddress | None = None
    """HOST:PORT, an IP address; or unix: and the path of a socket."""
    dns: HostName | None = None
    """A host name, with `port` beside it: every address it has, asked for again at its TTL."""
    port: Port | None = None
    """The port of `dns`."""
    srv: ServiceName | None = None
    """The name of SRV records, which have ports and weights of their own."""
    weight: Weight = 1
    """Its share relative to the others."""
    max_connections: Count | None = None
    """Never more open connections than this; each, where a name stands for several."""

    @property
    def place(self) -> str:
        """Where it is, for people."""
        if self.dns is not None:
            return f"dns:{self.dns}:{self.port}"
        return f"srv:{self.srv}" if self.srv is not None else str(self.address)


class Connect(Section):
    """Dialling an upstream."""

    timeout: Duration = 1.0
    """For one attempt."""
    attempts: Attempts = 3
    """Different upstreams tried for one client connection."""


class PassiveHealth(Section):
    """What failed dials say about an upstream."""

    failures: Count = 5
    """Consecutive failed dials before it is left out."""
    eject: Duration = 10.0
    """For how long it is left out."""
    max_ejected: Share = 0.5
    """Never more of an app's upstreams left out than this."""


class ActiveHealth(Section):
    """Checks of every upstream, whether clients come or not."""

    type: Literal["tcp", "tls"] = "tcp"
    """tcp: it can be connected to. tls: its certificate is what `upstream_tls` demands as well."""
    interval: Duration = 2.0
    """From one check to the next."""
    timeout: Duration = 1.0
    """For a whole check; at most `interval`."""
    rise: Count = 2
    """Passed checks in a row before one that is down is up."""
    fall: Count = 3
    """Failed checks in a row before one that is up is down."""
    jitter: Share = 0.1
    """The share of `interval` that is left off at random, so that checks do not come together."""
    send: Bytes | None = None
    """Text to send first."""
    expect: Bytes | None = None
    """What the answer must begin with."""


class Health(Section):
    """When an upstream is left out."""

    active: ActiveHealth | None = None
    """Off by default."""
    passive: PassiveHealth = PassiveHealth()


class AppTls(Section):
    """A server certificate of one app's own."""

    cert: FilePath
    """The certificate chain, PEM, leaf first."""
    key: FilePath
    """Its private key, PEM; refused when group or world readable."""


class UpstreamTls(Section):
    """TLS 1.3 to the upstreams of an app; their certificates are always verified."""

    ca: FilePath
    """The CA certificates that theirs must come from, PEM."""
    cert: FilePath | None = None
    """The certificate chain we show them, PEM, leaf first."""
    key: FilePath | None = None
    """The private key of that, PEM; refused when group or world readable."""
    verify_name: VerifyName | None = None
    """What their certificates must say: a host name, told to them as well (SNI), or an IP address; by
    default the name of a `dns` upstream, else the upstream's IP address."""


class App(Section):
    """One application: where clients arrive and who serves them."""

    listen: ListenAddress
    """HOST:PORT, an IP address; [::] listens on both families."""
    upstreams: Annotated[tuple[Upstream, ...], *at_least_one("upstream", "minItems")]
    limits: str | None = None
    """A class of limits for each client; the class 'default' when there is one."""
    app_limits: str | None = None
    """A class of limits for all clients of this app together."""
    max_connections: Count | None = None
    """Open connections of all clients together."""
    connect: Connect = Connect()
    upstream_tls: UpstreamTls | None = None
    """Speak TLS to the upstreams; plain TCP by default."""
    proxy_protocol: Literal["v1", "v2", "v2+tls"] | None = None
    """Tell the upstreams first who the client is; v2+tls: with its name, serial and certificate."""
    proxy_protocol_from: tuple[Network, ...] = ()
    """Balancers in front of this one that do so, and are believed: addresses or networks."""
    affinity: Literal["client"] | None = None
    """A client comes to the same upstream again, as long as that is up and has room."""
    slow_start: Duration | None = None
    """How long an upstream that comes, or comes back, takes to its full weight; off by default."""
    on_down: Literal["keep", "drain", "cut"] = "keep"
    """Open connections to an upstream that checks find down: keep them, give them
    `node.drain_timeout`, or end them."""
    on_remove: Literal["keep", "drain", "cut"] = "drain"
    """The same for an upstream that is removed, as by a name that no longer has its address."""
    idle_timeout: Duration = 1800.0
    """No byte either way for this long ends the connection."""
    half_close_timeout: Duration = 60.0
    """How long one direction may stay open after the other ended."""
    tcp_keepalive: Keepalive = 60.0
    """Silence before the kernel asks whether the other side is there."""
    on_truncated: Literal["reset", "eof"] = "reset"
    """What the upstream sees when a client's TLS stream ends without close_notify."""
    alpn: tuple[Alpn, ...] = ()
    """Application protocols offered, most wanted first."""
    tls: AppTls | None = None
    plaintext: Flag = False
    """No TLS, so no identity: every client may connect."""
    health: Health = Health()


class Client(Section):
    """One client: the certificates it may show and the apps it may use."""

    serials: Annotated[tuple[Serial, ...], *at_least_one("serial", "minItems")]
    """Certificate serials, quoted hexadecimal; several during rotation."""
    apps: tuple[str, ...] = ()
    """What it may use; nothing by default."""
    limits: dict[str, str] = {}
    """App to class of limits, for this client only."""
    disabled: Flag = False
    """Known, but refused."""


class ClientStore(Section):
    """An HTTPS endpoint that knows clients by the serials of their certificates."""

    url: StoreUrl
    """Where to ask; {serial} stands for the serial, upper-case hexadecimal."""
    ca: FilePath | None = None
    """The CA certificates its certificate must come from, PEM; those of the system by default."""
    cert: FilePath | None = None
    """The certificate chain we show it, PEM, leaf first."""
    key: FilePath | None = None
    """The private key of that, PEM; refused when group or world readable."""
    timeout: Duration = 1.0
    """For one question, from the connect to the last byte; at most half of authorize_timeout."""
    ttl: Duration = 60.0
    """How long an answer holds."""
    negative_ttl: Duration = 5.0
    """How long it holds that a serial is unknown there."""
    on_failure: Literal["deny", "stale"] = "deny"
    """While it does not answer: refuse those who are not remembered, or take their last answer."""
    max_stale: Duration = 3600.0
    """With `on_failure: stale`: no answer older than this."""


class Alerts(Section):
    """Who is told what an operator should know soon; each alert is one JSON object."""

    command: Command | None = None
    """A program and its arguments, run without a shell for each alert, which is on its standard input."""
    webhook: WebhookUrl | None = None
    """Where each alert is posted to."""
    ca: FilePath | None = None
    """The CA certificates the webhook's must come from, PEM; those of the system by default."""
    timeout: Duration = 10.0
    """For one delivery; then the program is killed, or the request given up."""
    min_interval: DurationOrZero = 60.0
    """The same alert is delivered again no sooner than this."""


class Config(Section):
    """The whole configuration. It is valid: names it mentions exist, addresses do not clash."""

    version: Version
    """The version of this format."""
    node: Node = Field(default_factory=Node)
    tls: Tls | None = None
    logging: Logging = Logging()
    limits: dict[Name, LimitClass] = {}
    apps: Annotated[dict[Name, App], *at_least_one("app", "minProperties")]
    clients: dict[Name, Client] = {}
    client_store: ClientStore | None = None
    """Where clients are looked up that are not listed here."""
    certificate_claims: Flag = False
    """Let in whom a certificate of the CA names as a client of an app, unless listed elsewhere."""
    alerts: Alerts | None = None
    """Who is told of upstreams that fail and of certificates that end; the log has it all the same."""
    authorize_timeout: Duration = 2.0
    """How long an authorization callback may take; then the connection is refused."""

    @model_validator(mode="wrap")
    @classmethod
    def _rules(cls, data: Any, handler: ModelWrapValidatorHandler[Config]) -> Config:
        return rules.validate(data, handler)
